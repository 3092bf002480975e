//! Attention against a slow f64 reference, finite differences and PyTorch.

use super::*;
use crate::ops::check::*;

const SMALL: Heads = Heads { heads: 4, kv_heads: 2, head_dim: 3 };

fn reference(x: &[f64], h: Heads, cu: &[u32]) -> Vec<f64> {
    let (row, d) = (h.row(), h.head_dim);
    let mut out = vec![0.0; x.len() / row * h.heads * d];
    for w in cu.windows(2) {
        let (a, b) = (w[0] as usize, w[1] as usize);
        for i in a..b {
            for head in 0..h.heads {
                let kv = h.heads + head / (h.heads / h.kv_heads);
                let scores: Vec<f64> = (a..=i)
                    .map(|j| {
                        let dot = (0..d).map(|c| x[i * row + head * d + c] * x[j * row + kv * d + c]).sum::<f64>();
                        (dot / (d as f64).sqrt()).exp()
                    })
                    .collect();
                let total: f64 = scores.iter().sum();
                for c in 0..d {
                    let v = |j: usize| x[j * row + (kv + h.kv_heads) * d + c];
                    out[(i * h.heads + head) * d + c] = scores.iter().zip(a..).map(|(s, j)| s / total * v(j)).sum();
                }
            }
        }
    }
    out
}

#[test]
fn it_agrees_with_f64_over_packed_sequences_longer_than_a_block() {
    let cu = [0, 1, 70, 70, 203];
    let x = random(&[203, SMALL.row()], 1);
    let (out, _) = attention(&x, &SMALL.plain(), &cu).unwrap();
    close(&f64s(&out), &reference(&f64s(&x), SMALL, &cu), 2e-6);
}

#[test]
fn its_gradient_agrees_with_finite_differences() {
    let cu = [0, 4, 9];
    let (x, dout) = (random(&[9, SMALL.row()], 1), random(&[9, 12], 2));
    let (out, lse) = attention(&x, &SMALL.plain(), &cu).unwrap();
    let dx = attention_backward(&dout, &x, &out, &lse, &SMALL.plain(), &cu).unwrap();
    close(&f64s(&dx), &differences(&f64s(&x), |x| inner(&reference(x, SMALL, &cu), &f64s(&dout))), 5e-6);
}

#[test]
fn its_gradient_over_many_blocks_agrees_with_a_few_finite_differences() {
    let (h, t) = (Heads { heads: 2, kv_heads: 1, head_dim: 4 }, 150);
    let (x, dout) = (random(&[t, h.row()], 1), random(&[t, 8], 2));
    let (out, lse) = attention(&x, &h.plain(), &[0, t as u32]).unwrap();
    let dx = f64s(&attention_backward(&dout, &x, &out, &lse, &h.plain(), &[0, t as u32]).unwrap());
    let (mut at, d) = (f64s(&x), f64s(&dout));
    let top = dx.iter().fold(0f64, |m, x| m.max(x.abs()));
    for i in (0..dx.len()).step_by(97) {
        let kept = at[i];
        let mut f = |v: f64| {
            at[i] = v;
            inner(&reference(&at, h, &[0, t as u32]), &d)
        };
        let want = (f(kept + 1e-5) - f(kept - 1e-5)) / 2e-5;
        at[i] = kept;
        assert!((dx[i] - want).abs() < 5e-6 * top, "at {i}: {} is not {want}", dx[i]);
    }
}

#[test]
fn it_agrees_with_pytorch() {
    // seq: sin(a·(i+1)+b). T=5;H=2;K=1;D=4; qkv=seq((T,(H+2*K)*D),0.37,0); do=seq((T,H*D),0.9,2.0)
    // for a,b in((0,3),(3,5)): z=qkv[a:b]; q=z[:,:H*D].reshape(-1,H,D).transpose(0,1);
    //   k=z[:,H*D:(H+K)*D].reshape(-1,K,D).transpose(0,1).repeat_interleave(H//K,0); v likewise from the last K*D columns
    //   F.scaled_dot_product_attention(q[None],k[None],v[None],is_causal=True)[0].transpose(0,1).reshape(b-a,-1)
    // o=torch.cat of both; o.backward(do)
    let want_o = [
        -0.99523985,
        -0.89264768,
        -0.66923988,
        -0.35525355,
        -0.99523985,
        -0.89264768,
        -0.66923988,
        -0.35525355,
        -0.97839963,
        -0.94928885,
        -0.79169631,
        -0.52695137,
        -0.9764725,
        -0.95577055,
        -0.80570954,
        -0.54659963,
        -0.91821235,
        -0.95262009,
        -0.85809523,
        -0.64743108,
        -0.88706118,
        -0.96195751,
        -0.90665746,
        -0.72864544,
        -0.54706281,
        -0.81274688,
        -0.96842939,
        -0.99303961,
        -0.54706281,
        -0.81274688,
        -0.96842939,
        -0.99303961,
        -0.39847809,
        -0.69676077,
        -0.90074009,
        -0.98280853,
        -0.34272116,
        -0.65323657,
        -0.87533951,
        -0.97896928,
    ];
    let want_dqkv = [
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        -0.077789061,
        -0.068953104,
        -0.050784662,
        -0.02574276,
        0.36313075,
        0.026941061,
        -0.32963699,
        -0.43675238,
        0.006582364,
        0.0061207032,
        0.0048306361,
        0.0028867647,
        0.0037417889,
        0.0034793362,
        0.002745972,
        0.0016409531,
        -0.012286061,
        -0.0052929921,
        0.002416458,
        0.0097988527,
        0.1469788,
        -0.14359498,
        -0.32549894,
        -0.26107174,
        -0.041522976,
        -0.041556325,
        -0.035965227,
        -0.025506392,
        0.044724181,
        0.045083046,
        0.039340135,
        0.028272718,
        0.090075195,
        0.074246176,
        0.048368286,
        0.015943978,
        0.11252698,
        -0.1165411,
        -0.25741321,
        -0.20348015,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.077115752,
        0.084321007,
        0.080113813,
        0.065063588,
        -0.52397501,
        -0.27205145,
        0.18575513,
        0.50298601,
        0.0098330118,
        0.015865248,
        0.019750196,
        0.020962052,
        -0.011310428,
        -0.018249061,
        -0.022717768,
        -0.024111737,
        -0.077115819,
        -0.084321074,
        -0.080113858,
        -0.065063603,
        -0.28978005,
        -0.19877562,
        0.04265821,
        0.25180918,
    ];
    let h = Heads { heads: 2, kv_heads: 1, head_dim: 4 };
    let x = wave(&[5, 16], 0.37, 0.0);
    let (out, lse) = attention(&x, &h.plain(), &[0, 3, 5]).unwrap();
    close(&f64s(&out), &want_o, 1e-6);
    let dx = attention_backward(&wave(&[5, 8], 0.9, 2.0), &x, &out, &lse, &h.plain(), &[0, 3, 5]).unwrap();
    close(&f64s(&dx), &want_dqkv, 2e-6);
}

#[test]
fn a_cache_filled_in_pieces_gives_what_one_pass_gives() {
    let t = 150;
    let x = random(&[t, SMALL.row()], 1);
    let (want, _) = attention(&x, &SMALL.plain(), &[0, t as u32]).unwrap();
    let (k, v) = (tensor(&vec![0.0; 160 * 6], &[160, 6]), tensor(&vec![0.0; 160 * 6], &[160, 6]));
    let mut found = Vec::new();
    for (a, b) in [(0, 70), (70, 71), (71, 149), (149, 150)] {
        found.extend(f64s(&attention_cached(&x.narrow(0, a, b - a).unwrap(), &SMALL.plain(), &k, &v, a).unwrap()));
    }
    close(&found, &f64s(&want), 2e-6);
    assert!(attention_cached(&x.narrow(0, 0, 11).unwrap(), &SMALL.plain(), &k, &v, 150).is_err());
}

#[test]
fn boundaries_that_do_not_fit_are_an_error() {
    let x = random(&[5, SMALL.row()], 1);
    for cu in [&[0, 4][..], &[1, 5], &[0, 6], &[0, 3, 2, 5], &[]] {
        assert!(attention(&x, &SMALL.plain(), cu).is_err(), "{cu:?}");
    }
}
