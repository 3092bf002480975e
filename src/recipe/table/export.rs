//! `[export]`: what a run that has finished writes by itself.

use crate::recipe::schema::{Default::*, Entry, Type::*};

/// The types of a GGUF, as llama-quantize names them.
pub const TYPES: &[&str] = &[
    "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m", "q4_k_s", "q4_1", "q4_0",
    "q3_k_l", "q3_k_m", "q3_k_s", "q2_k",
];

pub(in crate::recipe) const EXPORT: &[Entry] = &[
    Entry::new(
        "export.merged",
        Choice(&["none", "16bit", "f32"]),
        Is("\"none\""),
        "Once the run has finished: the adapter folded into its base, as a folder that transformers opens.",
    )
    .names(&["save_method", "merge", "merged_16bit", "export_dir"]),
    Entry::new(
        "export.gguf",
        Choices(TYPES),
        Is("[]"),
        "Once the run has finished: these GGUF files, proven, with a Modelfile; q4_k_m is the usual one.",
    )
    .names(&["quantization_method", "quantization_type", "gguf_types", "save_gguf"]),
    Entry::new("export.lora", Bool, Is("false"), "Once the run has finished: the adapter alone as a GGUF.")
        .names(&["save_lora_gguf"]),
    Entry::new(
        "export.ollama",
        Text,
        Absent,
        "Once the GGUF is proven: the model of Ollama's to make of it, where Ollama is.",
    )
    .names(&["ollama_model", "ollama_name"]),
];
