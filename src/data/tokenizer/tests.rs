//! Tests of the tokenizer; those that need fetched files say so and skip when they are absent.

use super::*;
use crate::data::assets::asset;
use crate::model::source::resolve;

fn smollm2() -> Option<(Tokenizer, Templates)> {
    let path = asset("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")?;
    let opened = Opened::open(&resolve(path.to_str().unwrap()).unwrap()).unwrap();
    Some(Tokenizer::of(&opened).unwrap())
}

#[test]
fn the_byte_alphabet_is_gpt_2s() {
    // list(bytes_to_unicode().items()) in transformers: 0 → 'Ā', 32 → 'Ġ', 127 → 'ġ', 173 → 'Ń'.
    for (c, b) in [('Ā', 0u8), ('Ġ', 32), ('ġ', 127), ('Ń', 173), ('!', 33), ('~', 126), ('¡', 161), ('ÿ', 255)] {
        assert_eq!(pre::byte_of(c), Some(b), "{c}");
    }
    assert_eq!(pre::byte_of(' '), None);
    assert_eq!(pre::byte_of('中'), None);
}

#[test]
fn smollm2_speaks_chatml_with_one_token_a_mark() {
    let Some((tokenizer, templates)) = smollm2() else { return };
    assert_eq!(tokenizer.token_to_id("<|im_start|>"), Some(1));
    assert_eq!(tokenizer.special.eos_token.as_deref(), Some("<|im_end|>"));
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (Some(1), Some(2)));
    assert!(templates.default.unwrap().contains("<|im_start|>"));
    let text = "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n";
    let e = tokenizer.encode(text).unwrap();
    assert_eq!((e.ids.first(), tokenizer.is_special(1), tokenizer.is_special(100)), (Some(&1), true, false));
    assert_eq!(tokenizer.decode(&e.ids, false).unwrap(), text);
    assert_eq!(tokenizer.single_id("<|im_end|>"), Some(2));
    assert_eq!(tokenizer.single_id("no single token"), None);
}

#[test]
fn offsets_are_byte_ranges_that_cover_the_text() {
    let Some((tokenizer, _)) = smollm2() else { return };
    let text = "Grüße  aus\n\n東京 🦀 <|im_end|>\n ok";
    let e = tokenizer.encode(text).unwrap();
    let mut covered = vec![false; text.len()];
    for r in &e.offsets {
        assert!(r.start < r.end, "{r:?}");
        assert!(text.is_char_boundary(r.start) && text.is_char_boundary(r.end), "{r:?}");
        covered[r.clone()].fill(true);
    }
    assert!(covered.iter().all(|c| *c));
    // A span marks every token that holds any of it, and no other.
    let at = text.find("<|im_end|>").unwrap();
    let marks = e.covered(std::slice::from_ref(&(at..at + 11)));
    let marked: Vec<u32> = e.ids.iter().zip(&marks).filter(|(_, m)| **m).map(|(id, _)| *id).collect();
    assert_eq!(marked.len(), 2);
    assert_eq!(marked[0], 2);
    assert_eq!(tokenizer.display(marked[1]), "\\n");
}

#[test]
fn a_stream_gives_the_same_text_as_decoding_at_once() {
    let Some((tokenizer, _)) = smollm2() else { return };
    let text = "Grüße aus 東京 🦀🦀, ça va ? <|im_end|>\n tail ▁ é";
    let ids = tokenizer.encode(text).unwrap().ids;
    let mut stream = TextStream::new(false);
    let mut out = String::new();
    for id in &ids {
        let piece = stream.push(&tokenizer, *id).unwrap();
        assert!(!piece.contains('\u{FFFD}'), "{piece}");
        out.push_str(&piece);
    }
    out.push_str(&stream.finish(&tokenizer).unwrap());
    assert_eq!(out, text);
    // A character that never completes comes out at the end.
    let crab = tokenizer.encode("🦀").unwrap().ids;
    assert!(crab.len() > 1);
    assert_eq!(stream.push(&tokenizer, crab[0]).unwrap(), "");
    assert_eq!(stream.finish(&tokenizer).unwrap(), "\u{FFFD}");
}

/// llama.cpp's own vectors (`models/ggml-vocab-*.gguf.inp` and `.out`, tests/test-tokenizer-0.cpp): texts parted by a
/// marker, ids a line, nothing added around a text.
fn equal_to_llama_cpp(name: &str) -> Option<(usize, Vec<String>)> {
    let path = asset(&format!("vocab/ggml-vocab-{name}.gguf"))?;
    let with = |suffix: &str| std::fs::read_to_string(format!("{}{suffix}", path.display())).unwrap();
    let (tokenizer, _) = Tokenizer::of_gguf(&GgufFile::open(&path).unwrap()).unwrap();
    let (inputs, outputs) = (with(".inp"), with(".out"));
    let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    let outputs: Vec<&str> = outputs.lines().collect();
    let mut different = Vec::new();
    for (text, expected) in inputs.iter().zip(&outputs) {
        let expected: Vec<u32> = expected.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let ids = tokenizer.encode(text).unwrap().ids;
        if ids != expected {
            different.push(format!("{text:?}: {ids:?}, llama.cpp {expected:?}"));
        }
    }
    assert!(outputs.len() > 40, "{name}: {} vectors", outputs.len());
    Some((outputs.len(), different))
}

#[test]
fn vocabularies_in_a_gguf_give_the_ids_that_llama_cpp_gives() {
    let mut report = String::new();
    for name in [
        "llama-bpe",
        "qwen2",
        "qwen35",
        "gpt-2",
        "starcoder",
        "refact",
        "command-r",
        "mpt",
        "falcon",
        "llama-spm",
        "phi-3",
    ] {
        let Some((_, different)) = equal_to_llama_cpp(name) else { return };
        for line in different {
            report.push_str(&format!("{name}: {line}\n"));
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn a_vocabulary_cut_in_an_unknown_way_is_refused_by_name() {
    let error = pre::of("never-heard-of").err().unwrap().to_string();
    assert!(error.contains("never-heard-of") && error.contains("tokenizer.json"), "{error}");
    let Some(path) = asset("vocab/ggml-vocab-bert-bge.gguf") else { return };
    let error = Tokenizer::of_gguf(&GgufFile::open(&path).unwrap()).err().unwrap().to_string();
    assert!(error.contains("bert") && error.contains("ggml-vocab-bert-bge.gguf"), "{error}");
}

#[test]
fn smollm2_gives_the_ids_that_llama_cpp_gives() {
    let Some((tokenizer, _)) = smollm2() else { return };
    // tests/reference/token_ids.py
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/tokens_smollm2.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert!(vectors.len() > 10);
    for vector in vectors {
        let expected: Vec<u32> = serde_json::from_value(vector["ids"].clone()).unwrap();
        let text = vector["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text).unwrap().ids, expected, "{text:?}");
    }
}
