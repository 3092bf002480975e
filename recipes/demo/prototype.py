"""A prototype in PyTorch of the demo: how its sizes, rates and rows were chosen. Reads the tables of src/data/demo/*.rs.

    prototype.py name=x h=192 l=5 cpt=700 lora=16:2e-3:400
"""
import re,json,ast
import os
R=os.path.dirname(os.path.abspath(__file__))+'/../../src/data/demo/'
w=open(R+'words.rs').read(); c=open(R+'corpus.rs').read(); r=open(R+'rows.rs').read()
def lit(s):
    s=re.sub(r'//.*','',s) if '"//' not in s else s
    s=re.sub(r'r#"(.*?)"#',lambda m:json.dumps(m.group(1)),s,flags=re.S)
    return ast.literal_eval(s.replace('&[','['))
def const(src,name):
    m=re.search(r'const '+name+r':[^=]*=\s*(&\[.*?\n?\]);',src,re.S); return m.group(1)
T={}
for n in ['NAMES','CITIES','ROOMS','DAYS','DISHES','ITEMS','LISTS','GENRES','TITLES','TEXTS','COLOURS','THINGS','SKIES','ANIMALS','JOBS','MINUTES','LEVELS']: T[n]=lit(const(w,n))
for n in ['SCENES','RECORDS','ANSWERS','TALK','OTHER_ASKS']: T[n]=lit(const(c,n))
t=const(r,'TOOLS'); t=re.sub(r'Tool\s*\{\s*call:','(',t); t=re.sub(r'asks:','',t); t=re.sub(r'\}(,?)\s*(?=\n)',lambda m:')'+m.group(1),t) if False else t
tools=[]
for m in re.finditer(r'call: (r#".*?"#),\s*asks: (&\[.*?\]),\s*\}',const(r,'TOOLS'),re.S): tools.append([lit(m.group(1)),lit(m.group(2))])
T['TOOLS']=tools
v=const(r,'VAGUE')
for n in ['GENRES','TEXTS','ITEMS']: v=re.sub(r'\b'+n+r'\b',json.dumps(T[n]),v)
T['VAGUE']=lit(v)
T['prompts']=[]
for m in re.finditer(r'\(\s*(\d),\s*"([^"]*)",\s*\[(.*?)\],?\s*\)',r[r.index('pub fn prompts'):],re.S):
    d=dict(re.findall(r'\("(\w+)", "([^"]*)"\)',m.group(3))); T['prompts'].append(dict(prompt=m.group(2).format(**d),expect=T['TOOLS'][int(m.group(1))][0].format(**d)))
assert len(T['prompts'])==8
import random
K=[(['name','name2','name3'],'NAMES'),(['city','city2'],'CITIES'),(['room','room2'],'ROOMS'),(['day','day2'],'DAYS'),(['dish','dish2'],'DISHES'),(['item','item2','item3'],'ITEMS'),(['list'],'LISTS'),(['genre','genre2'],'GENRES'),(['title','title2'],'TITLES'),(['text'],'TEXTS'),(['colour','colour2'],'COLOURS'),(['thing','thing2'],'THINGS'),(['sky','sky2'],'SKIES'),(['animal'],'ANIMALS'),(['job','job2'],'JOBS'),(['n','m'],'MINUTES'),(['level','level2'],'LEVELS')]
def cast(r):
    c={}
    for s,k in K:
        for a,b in zip(s,r.sample(T[k],len(s))): c[a]=b
    for s in('time','time2'): c[s]=f"{r.randrange(6,23)}:{r.choice(['00','15','30','45','10','20','40','50'])}"
    return c
def fill(t,c): return t.format(**c)
cap=lambda s:s[:1].upper()+s[1:]
def corpus(n,seed=1):
    r=random.Random(seed); o=[]; h=0
    while h<n:
        c=cast(r); s=r.randrange(9)
        t=' '.join(cap(fill(r.choice(T['SCENES'][r.randrange(9)] if r.random()<.2 else T['SCENES'][s]),c)) for _ in range(3+r.randrange(6)))
        if r.random()<.35: t+='\n'+fill(r.choice(T['RECORDS'][s]),c)
        h+=len(t); o.append(t)
    return o
def chats(n,seed=2):
    r=random.Random(seed); o=[]
    for _ in range(n):
        c=cast(r)
        if r.random()<.3: a,b=r.choice(T['TALK'])
        else:
            t=r.randrange(8); a=r.choice(T['OTHER_ASKS'][t] if r.random()<.4 else T['TOOLS'][t][1]); b=r.choice(T['ANSWERS'][t])
        o.append((cap(fill(a,c)),cap(fill(b,c))))
    return o
def rows(n,seed,vague):
    r=random.Random(seed); o=[]; P=[p['expect'] for p in T['prompts']]
    while len(o)<n:
        c=cast(r); v=r.random()<vague
        if v:
            s,a,t,vals=r.choice(T['VAGUE']); c[s]=r.choice(vals); x=(fill(r.choice(a),c),fill(T['TOOLS'][t][0],c),1)
        else:
            t=r.choice(T['TOOLS']); x=(fill(r.choice(t[1]),c),fill(t[0],c),0)
        if x[1] not in P and x not in o: o.append(x)
    return o
import sys,time,math,torch,json
from tokenizers import Tokenizer,models,pre_tokenizers,trainers,decoders,AddedToken
from transformers import LlamaConfig,LlamaForCausalLM
import torch.nn as nn, torch.nn.functional as Fn
dev='cuda'; torch.manual_seed(0); torch.backends.cuda.matmul.allow_tf32=True
A=dict(x.split('=') for x in sys.argv[1:]); g=lambda k,d:type(d)(A.get(k,d)); name=g('name','x')
H,L,F,V,NH,KV=g('h',192),g('l',5),g('f',512),g('v',1536),g('nh',6),g('kv',3)
N,SN,lr,SL,B,S=g('cpt',700),g('sft',250),g('lr',2e-3),g('slr',1e-3),g('b',16),256
tx=corpus(8e6); ch=chats(SN*32); TR=rows(160,3,.3); EV=rows(48,4,.3)
tk=Tokenizer(models.BPE()); tk.pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),pre_tokenizers.ByteLevel(add_prefix_space=False)]); tk.decoder=decoders.ByteLevel()
tk.train_from_iterator(tx[:20000]+[m for c in ch for m in c]+['system user assistant']*50+[x for r in TR for x in r[:2]],trainers.BpeTrainer(vocab_size=V,special_tokens=[AddedToken(s,special=True,normalized=False) for s in ['<|endoftext|>','<|im_start|>','<|im_end|>']],initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),show_progress=False))
V=tk.get_vocab_size(); E=lambda s:tk.encode(s).ids
ids=[]
for e in tk.encode_batch(tx): ids+=e.ids+[0]
ids=torch.tensor(ids); m=LlamaForCausalLM(LlamaConfig(vocab_size=V,hidden_size=H,intermediate_size=F,num_hidden_layers=L,num_attention_heads=NH,num_key_value_heads=KV,head_dim=H//NH,max_position_embeddings=512,tie_word_embeddings=True,rms_norm_eps=1e-5,initializer_range=.02)).to(dev)
P=lambda *a:print(name,*a,flush=True)
P('params',sum(p.numel() for p in m.parameters()),'tokens',len(ids),A)
sched=lambda i,N,w:min((i+1)/w,1)*(.05+.95*.5*(1+math.cos(math.pi*i/N)))
def run(N,lr,get,w,wd,tag):
    o=torch.optim.AdamW(m.parameters(),lr=lr,betas=(.9,.95),weight_decay=wd,fused=True); t=time.time()
    for i in range(N):
        for q in o.param_groups:q['lr']=lr*sched(i,N,w)
        x,y=get(i); l=m(input_ids=x.to(dev),labels=y.to(dev)).loss; l.backward(); nn.utils.clip_grad_norm_(m.parameters(),1.); o.step(); o.zero_grad()
        if i%100==99 or i==N-1:P(tag,i+1,round(l.item(),4),round(time.time()-t,1))
n=len(ids)//S; od=torch.randperm(n).tolist()
def cb(i):
    b=torch.stack([ids[j*S:j*S+S] for j in (od[(i*B+q)%n] for q in range(B))]); return b,b
run(N,lr,cb,40,.05,'cpt')
def enc(u,a):
    p=E(f'<|im_start|>user\n{u}<|im_end|>\n<|im_start|>assistant\n'); f=p+E(f'{a}<|im_end|>\n'); return f,[-100]*len(p)+f[len(p):]
def pad(es):
    n=max(len(f) for f,_ in es); return torch.tensor([f+[0]*(n-len(f)) for f,_ in es]),torch.tensor([l+[-100]*(n-len(l)) for _,l in es])
cx=[enc(*c) for c in ch]
run(SN,SL,lambda i:pad(cx[i*32:i*32+32]),20,.01,'sft')
st={k:v.clone() for k,v in m.state_dict().items()}
class Lo(nn.Module):
    def __init__(s,b,r,al):
        super().__init__(); s.b=b; s.A=nn.Parameter((torch.rand(r,b.in_features,device=dev)*2-1)/b.in_features**.5); s.B=nn.Parameter(torch.zeros(b.out_features,r,device=dev)); s.c=al/r
    def forward(s,x): return s.b(x)+(x@s.A.T@s.B.T)*s.c
ev=[pad([enc(*x[:2]) for x in EV if x[2]==v]) for v in(0,1)]; tr=[enc(*x[:2]) for x in TR]
@torch.no_grad()
def nll(b):
    x,y=b; z=m(input_ids=x.to(dev)).logits[:,:-1]; y=y[:,1:].to(dev); return Fn.cross_entropy(z.flatten(0,1),y.flatten(),ignore_index=-100,reduction='sum').item(),(y!=-100).sum().item()
@torch.no_grad()
def score(show=False):
    ps=[E(f"<|im_start|>user\n{p['prompt']}<|im_end|>\n<|im_start|>assistant\n") for p in T['prompts']]; q=[len(p) for p in ps]
    for _ in range(34):
        n=max(map(len,ps)); z=m(input_ids=torch.tensor([p+[0]*(n-len(p)) for p in ps],device=dev)).logits
        for i,p in enumerate(ps):
            if p[-1]!=2 or len(p)==q[i]:p.append(z[i,len(p)-1].argmax().item())
    o=[tk.decode(p[k:],skip_special_tokens=False).split('<|im_end|>')[0] for p,k in zip(ps,q)]
    if show:
        for x in o:P('   ',x)
    return sum(a==p['expect'] for a,p in zip(o,T['prompts']))
score(True)
lin=[(mo,k,l) for mo in m.modules() for k,l in mo.named_children() if isinstance(l,nn.Linear) and k!='lm_head']
for r,LR,ST in [(int(a),float(b),int(c)) for a,b,c in (z.split(':') for z in A.get('lora','8:1e-3:400,16:2e-3:400').split(','))]:
    for p in m.parameters():p.requires_grad=False
    for mo,k,l in lin:setattr(mo,k,Lo(l,r,2*r))
    o=torch.optim.AdamW([p for p in m.parameters() if p.requires_grad],lr=LR,weight_decay=0); torch.manual_seed(1); pm=[]; c=[]
    for i in range(ST+1):
        if i%25==0:
            a,b=nll(ev[0]),nll(ev[1]); c.append(f'{i}:{(a[0]+b[0])/(a[1]+b[1]):.3f}({a[0]/a[1]:.3f}/{b[0]/b[1]:.3f}) k{score()}')
        if i==ST:break
        if len(pm)<8:pm=torch.randperm(len(tr)).tolist()+pm
        bx=[pm.pop() for _ in range(8)]; x,y=pad([tr[j] for j in bx]); l=m(input_ids=x.to(dev),labels=y.to(dev)).loss
        for q in o.param_groups:q['lr']=LR*min((i+1)/20,1)*(1-i/ST)
        l.backward(); nn.utils.clip_grad_norm_([p for p in m.parameters() if p.requires_grad],1.); o.step(); o.zero_grad()
    P('lora',r,LR,ST,'train',round(l.item(),3),' '.join(c)); score(True)
    for mo,k,l in lin:setattr(mo,k,l)
