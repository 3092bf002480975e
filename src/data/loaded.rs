//! A model ready to work with: its opened files, tokenizer and chat template together.

use crate::Result;
use crate::data::tokenizer::{Templates, Tokenizer};
use crate::model::loading::Opened;
use crate::model::source::Source;

/// Everything a model's files say.
pub struct Loaded {
    /// Its weights are read when it is known how they are to be held.
    pub opened: Opened,
    pub tokenizer: Tokenizer,
    /// Its chat templates as Jinja text; a base model may have none.
    pub templates: Templates,
    /// Short, for titles.
    pub name: String,
    /// For `base_model_name_or_path` of an adapter.
    pub reference: String,
    /// The commit of a hub model.
    pub revision: Option<String>,
}

/// Load a model but for its weights. Where only its tokenizer or its shape is needed, use [`Opened`] and [`Tokenizer::of`].
pub fn load(source: &Source) -> Result<Loaded> {
    let opened = Opened::open(source)?;
    let (tokenizer, templates) = Tokenizer::of(&opened)?;
    Ok(Loaded {
        opened,
        tokenizer,
        templates,
        name: source.name.clone(),
        reference: source.reference.clone(),
        revision: source.revision.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::assets::asset;
    use crate::model::source::resolve;

    #[test]
    fn a_gguf_has_the_weights_that_transformers_reads_from_it() {
        let Some(path) = asset("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
        let loaded = load(&resolve(path.to_str().unwrap()).unwrap()).unwrap();
        let (config, weights) = (loaded.opened.config(), loaded.opened.weights().unwrap());
        assert_eq!(loaded.name, "SmolLM2-135M-Instruct.Q4_1");
        assert_eq!((config.hidden_size, config.num_hidden_layers, config.head_dim), (576, 30, 64));
        assert_eq!((config.rms_norm_eps, config.rope_theta, config.tie_word_embeddings), (1e-5, 1e5, true));
        assert_eq!((config.bos_token_id, config.eos_token_ids.as_slice()), (Some(1), &[2][..]));
        assert_eq!(weights.tensors.len(), 272);
        // m = AutoModelForCausalLM.from_pretrained(dir, gguf_file=name, dtype=torch.float32)   (transformers 5.23)
        // t = m.state_dict()[name].double().flatten(); n = t.numel()
        // t[[0, n // 3, n // 2 + 7, -1]], (t * (torch.arange(1, n + 1, dtype=torch.float64) % 1009)).sum()
        let expected: [(&str, [f64; 4], f64); 6] = [
            (
                "model.embed_tokens.weight",
                [-0.10654449462890625, 0.07106781005859375, 0.12355613708496094, -0.0417022705078125],
                -7816191.77323246,
            ),
            (
                "model.layers.0.self_attn.q_proj.weight",
                [-0.0963134765625, -0.47003173828125, -0.581298828125, -0.255859375],
                37492.70118713379,
            ),
            (
                "model.layers.0.self_attn.k_proj.weight",
                [-0.1552734375, 0.1153564453125, -0.8046875, 0.3636474609375],
                26134.970108032227,
            ),
            (
                "model.layers.29.self_attn.v_proj.weight",
                [0.1417236328125, -0.1015625, 0.063262939453125, 0.05322265625],
                23843.31134033203,
            ),
            (
                "model.layers.17.mlp.down_proj.weight",
                [-0.0387115478515625, -0.10009765625, -0.25885009765625, -0.08062744140625],
                57524.20054626465,
            ),
            ("model.norm.weight", [1.7578125, 1.71875, 1.78125, 1.984375], 299776.453125),
        ];
        for (name, some, sum) in expected {
            let values = weights.tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let n = values.len();
            let found = [0, n / 3, n / 2 + 7, n - 1].map(|i| f64::from(values[i]));
            assert_eq!(found, some, "{name}");
            let weighted: f64 = values.iter().enumerate().map(|(i, &v)| f64::from(v) * ((i + 1) % 1009) as f64).sum();
            assert!((weighted - sum).abs() <= 1e-9 * sum.abs(), "{name}: {weighted} instead of {sum}");
        }
    }
}
