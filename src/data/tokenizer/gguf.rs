//! A tokenizer from a `.gguf`'s metadata (`tokenizer.ggml.*`): byte-level BPE (`gpt2`) and SentencePiece-style
//! BPE (`llama`), put together as the models' own `tokenizer.json` would be.

use super::{SpecialTokens, Templates, Tokenizer, failed, pre};
use crate::model::gguf::{Metadata, whole};
use crate::{Error, Result};
use candle_core::quantized::gguf_file::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, SplitDelimiterBehavior};

pub(super) fn read(meta: Metadata<'_>) -> Result<(Tokenizer, Templates)> {
    let vocabulary = Vocabulary::read(meta)?;
    let (mut inner, add_bos) = match meta.text("tokenizer.ggml.model")? {
        Some("gpt2") => byte_level(meta, &vocabulary)?,
        Some("llama") => sentence_piece(meta, &vocabulary)?,
        other => {
            return Err(Error::new(format!("tokenizer.ggml.model = {} is not supported", other.unwrap_or("(absent)")))
                .next(
                    "supported: gpt2 (byte-level BPE), llama (SentencePiece); or use the model's Hugging Face folder",
                ));
        }
    };
    add_tokens(&mut inner, &vocabulary)?;
    let special = special_tokens(meta, &vocabulary)?;
    if let (true, Some(bos)) = (meta.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos), &special.bos_token) {
        let id = inner.token_to_id(bos).ok_or_else(|| Error::new(format!("{bos} is not in the vocabulary")))?;
        // The template's own language gives `$`, `:` and spaces a meaning, so the token goes by a name of ours.
        let tokens = tokenizers::processors::template::Tokens::from(vec![
            tokenizers::processors::template::SpecialToken::new("bos".into(), vec![id], vec![bos.clone()])
                .map_err(failed)?,
        ]);
        let post = TemplateProcessing::builder()
            .try_single("bos $A")
            .and_then(|b| b.try_pair("bos $A $B"))
            .map_err(Error::new)?
            .special_tokens(tokens)
            .build()
            .map_err(|e| Error::new(format!("tokenizer: {e}")))?;
        inner.with_post_processor(Some(post));
    }
    Ok((Tokenizer::new(inner, special)?, templates(meta)?))
}

/// llama.cpp's token types (`llama_token_type` in llama.h).
mod kind {
    pub const UNKNOWN: usize = 2;
    pub const CONTROL: usize = 3;
    pub const USER_DEFINED: usize = 4;
}

struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    kinds: Vec<usize>,
    scores: Option<Vec<f32>>,
}

impl<'a> Vocabulary<'a> {
    fn read(meta: Metadata<'a>) -> Result<Self> {
        let tokens = meta
            .texts("tokenizer.ggml.tokens")?
            .filter(|t| !t.is_empty())
            .ok_or_else(|| Error::new("no vocabulary (tokenizer.ggml.tokens)"))?;
        let kinds = match meta.list("tokenizer.ggml.token_type")? {
            Some(list) => list.iter().map(|v| whole(v).unwrap_or(0)).collect(),
            None => vec![1; tokens.len()],
        };
        let scores = meta.list("tokenizer.ggml.scores")?.map(|list| {
            let score = |v: &Value| if let Value::F32(s) = v { *s } else { 0.0 };
            list.iter().map(score).collect::<Vec<f32>>()
        });
        if kinds.len() != tokens.len() || scores.as_ref().is_some_and(|s| s.len() != tokens.len()) {
            return Err(Error::new("tokenizer.ggml.token_type and scores must be as long as tokens"));
        }
        Ok(Self { tokens, kinds, scores })
    }

    fn to_map(&self) -> Result<Vocab> {
        let id = |i: usize| u32::try_from(i).map_err(|_| Error::new("the vocabulary is too large"));
        self.tokens.iter().enumerate().map(|(i, t)| Ok((t.to_string(), id(i)?))).collect()
    }

    /// The token whose id a metadata key names.
    fn named(&self, meta: Metadata<'_>, key: &str) -> Result<Option<String>> {
        // llama.cpp writes -1 (4294967295 unsigned) for "there is none".
        match meta.get(key).and_then(whole).filter(|&id| id != u32::MAX as usize) {
            None => Ok(None),
            Some(id) => match self.tokens.get(id) {
                Some(t) => Ok(Some(t.to_string())),
                None => Err(Error::new(format!("{key} = {id} is outside the vocabulary of {}", self.tokens.len()))),
            },
        }
    }
}

/// `gpt2`: bytes spelled as printable characters, merges given, text cut by the pre-tokenizer that `pre` names.
fn byte_level(meta: Metadata<'_>, vocabulary: &Vocabulary<'_>) -> Result<(tokenizers::Tokenizer, bool)> {
    let Some(name) = meta.text("tokenizer.ggml.pre")? else {
        return Err(Error::new("the vocabulary does not say how text is cut (tokenizer.ggml.pre)")
            .next("convert the model again with a newer llama.cpp, or use its Hugging Face folder"));
    };
    let cut = pre::of(name)?;
    let vocab = vocabulary.to_map()?;
    let mut merges = Vec::new();
    for merge in meta.texts("tokenizer.ggml.merges")?.ok_or_else(|| Error::new("no merges (tokenizer.ggml.merges)"))? {
        let Some((a, b)) = merge.split_once(' ') else {
            return Err(Error::new(format!("merge \"{merge}\" is not two tokens (tokenizer.ggml.merges)")));
        };
        // Checked here because the library indexes by it.
        for part in [a, b, &format!("{a}{b}")] {
            if !vocab.contains_key(part) {
                return Err(Error::new(format!("merge \"{merge}\": {part} is not in the vocabulary")));
            }
        }
        merges.push((a.to_string(), b.to_string()));
    }
    let model =
        BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(cut.ignore_merges).build().map_err(failed)?;
    let mut inner = tokenizers::Tokenizer::new(model);
    let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
    for pattern in cut.splits {
        let pattern = SplitPattern::Regex(pattern.to_string());
        steps.push(Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?.into());
    }
    steps.push(ByteLevel::new(false, false, false).into());
    inner.with_pre_tokenizer(Some(Sequence::new(steps)));
    inner.with_decoder(Some(ByteLevel::new(false, false, false)));
    if cut.nfc {
        inner.with_normalizer(Some(tokenizers::normalizers::unicode::NFC)).map_err(failed)?;
    }
    Ok((inner, cut.add_bos))
}

/// `llama`: SentencePiece BPE. The file has scores but no merges; these are rebuilt as transformers does when it
/// converts such a vocabulary (`generate_merges`): every split of every token into two tokens, best score first.
fn sentence_piece(meta: Metadata<'_>, vocabulary: &Vocabulary<'_>) -> Result<(tokenizers::Tokenizer, bool)> {
    use tokenizers::decoders::{byte_fallback::ByteFallback, fuse::Fuse, sequence, strip::Strip};
    use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, utils};
    let Some(scores) = &vocabulary.scores else {
        return Err(Error::new("a SentencePiece vocabulary without scores (tokenizer.ggml.scores)"));
    };
    let vocab = vocabulary.to_map()?;
    let mut merges = Vec::new();
    for (id, (token, score)) in vocabulary.tokens.iter().zip(scores).enumerate() {
        if matches!(vocabulary.kinds[id], kind::CONTROL | kind::UNKNOWN | kind::USER_DEFINED) {
            continue;
        }
        let mut pairs: Vec<(u32, u32, &str, &str)> = token
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| {
                let (a, b) = token.split_at(at);
                Some((*vocab.get(a)?, *vocab.get(b)?, a, b))
            })
            .collect();
        pairs.sort();
        merges.extend(pairs.into_iter().map(|(_, _, a, b)| (*score, a, b)));
    }
    merges.sort_by(|x, y| {
        y.0.total_cmp(&x.0)
            .then_with(|| y.1.chars().count().cmp(&x.1.chars().count()))
            .then_with(|| y.2.chars().count().cmp(&x.2.chars().count()))
    });
    let merges = merges.into_iter().map(|(_, a, b)| (a.to_string(), b.to_string())).collect();
    let unknown = vocabulary.named(meta, "tokenizer.ggml.unknown_token_id")?.unwrap_or_else(|| "<unk>".to_string());
    let mut builder = BPE::builder().vocab_and_merges(vocab.clone(), merges).byte_fallback(true).fuse_unk(true);
    if vocab.contains_key(&unknown) {
        builder = builder.unk_token(unknown);
    }
    let mut inner = tokenizers::Tokenizer::new(builder.build().map_err(failed)?);
    let prefix = meta.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    if prefix {
        normalizers.push(Prepend::new("▁".to_string()).into());
    }
    normalizers.push(Replace::new(" ", "▁").map_err(failed)?.into());
    inner.with_normalizer(Some(utils::Sequence::new(normalizers))).map_err(failed)?;
    let mut decoders: Vec<tokenizers::DecoderWrapper> =
        vec![Replace::new("▁", " ").map_err(failed)?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if prefix {
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    inner.with_decoder(Some(sequence::Sequence::new(decoders)));
    Ok((inner, true))
}

/// Control, unknown and user-defined tokens are found in a text before anything else.
fn add_tokens(inner: &mut tokenizers::Tokenizer, vocabulary: &Vocabulary<'_>) -> Result<()> {
    let mut added = Vec::new();
    for (token, kind) in vocabulary.tokens.iter().zip(&vocabulary.kinds) {
        match *kind {
            kind::CONTROL | kind::UNKNOWN if !token.is_empty() => added.push(AddedToken::from(*token, true)),
            kind::USER_DEFINED if !token.is_empty() => added.push(AddedToken::from(*token, false).normalized(false)),
            _ => {}
        }
    }
    inner.add_tokens(added).map_err(failed)?;
    Ok(())
}

fn special_tokens(meta: Metadata<'_>, vocabulary: &Vocabulary<'_>) -> Result<SpecialTokens> {
    let named = |key: &str| vocabulary.named(meta, &format!("tokenizer.ggml.{key}_token_id"));
    Ok(SpecialTokens {
        bos_token: named("bos")?,
        eos_token: named("eos")?,
        unk_token: named("unknown")?,
        pad_token: named("padding")?,
        others: serde_json::Map::new(),
    })
}

fn templates(meta: Metadata<'_>) -> Result<Templates> {
    let text = |key: &str| Ok::<_, Error>(meta.text(key)?.map(str::to_string));
    Ok(Templates { default: text("tokenizer.chat_template")?, tool_use: text("tokenizer.chat_template.tool_use")? })
}
