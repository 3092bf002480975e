//! How a model stretches its rotary frequencies beyond the length it was first trained at, as transformers'
//! `modeling_rope_utils.py` computes it; named as in `config.json`.

/// What the plain frequencies are turned into.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    /// `rope_type = "linear"`: all frequencies divided by the factor (Chen et al., 2023).
    Linear(f64),
    Llama3(Llama3),
    Yarn(Yarn),
    LongRope(LongRope),
}

/// `rope_type = "llama3"`: slow frequencies are divided, fast ones kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Llama3 {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: usize,
}

/// `rope_type = "yarn"` (Peng et al., 2023): a ramp between divided and kept, and larger cosines and sines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    pub factor: f64,
    pub original_max_position_embeddings: usize,
    pub beta_fast: f64,
    pub beta_slow: f64,
    /// Whether the ramp's ends are whole numbers.
    pub truncate: bool,
    /// What cosines and sines are multiplied by.
    pub attention_factor: f64,
}

/// `rope_type = "longrope"` (Ding et al., 2024; Phi-3): a divisor for each frequency, others for longer sequences.
#[derive(Debug, Clone, PartialEq)]
pub struct LongRope {
    /// As many as there are frequencies.
    pub short_factor: Vec<f64>,
    pub long_factor: Vec<f64>,
    pub original_max_position_embeddings: usize,
    /// What cosines and sines are multiplied by.
    pub attention_factor: f64,
}

impl Scaling {
    /// `rope_type` in `config.json`.
    pub fn name(&self) -> &'static str {
        match self {
            Scaling::Linear(_) => "linear",
            Scaling::Llama3(_) => "llama3",
            Scaling::Yarn(_) => "yarn",
            Scaling::LongRope(_) => "longrope",
        }
    }

    /// What cosines and sines are multiplied by.
    pub fn magnitude(&self) -> f64 {
        match self {
            Scaling::Yarn(y) => y.attention_factor,
            Scaling::LongRope(l) => l.attention_factor,
            _ => 1.0,
        }
    }

    /// The frequencies in place of `plain` ones (of base `theta`), and where there are two sets, the length beyond which
    /// the second counts.
    pub(super) fn frequencies(&self, plain: &[f64], theta: f64) -> (Vec<f64>, Option<(usize, Vec<f64>)>) {
        let divided = |by: &[f64]| plain.iter().zip(by).map(|(f, d)| f / d).collect();
        match self {
            Scaling::Linear(factor) => (plain.iter().map(|f| f / factor).collect(), None),
            Scaling::Llama3(l) => (plain.iter().map(|&f| l.scaled(f)).collect(), None),
            Scaling::Yarn(y) => (y.scaled(plain, theta), None),
            Scaling::LongRope(l) => {
                let long = (l.original_max_position_embeddings, divided(&l.long_factor));
                (divided(&l.short_factor), Some(long))
            }
        }
    }
}

impl Llama3 {
    fn scaled(&self, f: f64) -> f64 {
        let old = self.original_max_position_embeddings as f64;
        let wave = std::f64::consts::TAU / f;
        if wave > old / self.low_freq_factor {
            f / self.factor
        } else if wave < old / self.high_freq_factor {
            f
        } else {
            let smooth = (old / wave - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor);
            (1.0 - smooth) * f / self.factor + smooth * f
        }
    }

    /// What each of the `head_dim / 2` frequencies is divided by: 1 for fast ones, `factor` for slow ones, between in
    /// between.
    pub fn divisors(&self, head_dim: usize, rope_theta: f64) -> Vec<f64> {
        let plain = (0..head_dim / 2).map(|i| rope_theta.powf(-2.0 * i as f64 / head_dim as f64));
        plain.map(|f| f / self.scaled(f)).collect()
    }
}

impl Yarn {
    /// The cosines' and sines' factor where a configuration names none.
    pub fn magnitude_of(factor: f64) -> f64 {
        if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 }
    }

    fn scaled(&self, plain: &[f64], theta: f64) -> Vec<f64> {
        let d = 2.0 * plain.len() as f64;
        let original = self.original_max_position_embeddings as f64;
        // The pair that turns so many times within the original length.
        let pair = |turns: f64| d * (original / (turns * std::f64::consts::TAU)).ln() / (2.0 * theta.ln());
        let (low, high) = (pair(self.beta_fast), pair(self.beta_slow));
        let (low, high) = if self.truncate { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(d - 1.0));
        let high = if low == high { high + 0.001 } else { high };
        plain
            .iter()
            .enumerate()
            .map(|(i, f)| {
                let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                f / self.factor * ramp + f * (1.0 - ramp)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(d: usize, theta: f64) -> Vec<f64> {
        (0..d / 2).map(|i| theta.powf(-2.0 * i as f64 / d as f64)).collect()
    }

    #[test]
    fn scaled_frequencies_are_transformers() {
        // from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS as F; from transformers import Qwen2Config, Phi3Config
        // c=Qwen2Config(hidden_size=16,num_attention_heads=1,max_position_embeddings=4096,rope_parameters={"rope_type":"yarn",
        //   "rope_theta":10000.0,"factor":4.0,"original_max_position_embeddings":1024}); F["yarn"](c)
        // and with "truncate": False; Phi3Config(hidden_size=8,num_attention_heads=1,max_position_embeddings=64,
        //   original_max_position_embeddings=16,rope_parameters={"rope_type":"longrope","rope_theta":10000.0,
        //   "short_factor":[1.0,1.5,2.0,2.5],"long_factor":[2.0,3.0,4.0,5.0]}); F["longrope"](c), F["longrope"](c,seq_len=17)
        let yarn = |truncate| Yarn {
            factor: 4.0,
            original_max_position_embeddings: 1024,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate,
            attention_factor: Yarn::magnitude_of(4.0),
        };
        let close = |found: &[f64], want: &[f64]| {
            assert_eq!(found.len(), want.len());
            for (f, w) in found.iter().zip(want) {
                assert!((f - w).abs() <= 1e-6 * w, "{found:?} {want:?}");
            }
        };
        close(
            &Scaling::Yarn(yarn(true)).frequencies(&plain(16, 1e4), 1e4).0,
            &[1.0, 0.316227764, 0.0812500045, 0.0197642371, 0.00437500002, 7.90569466e-4, 2.50000012e-4, 7.90569466e-5],
        );
        close(
            &Scaling::Yarn(yarn(false)).frequencies(&plain(16, 1e4), 1e4).0,
            &[1.0, 0.316227764, 0.0853986368, 0.0191267766, 0.00355697144, 7.90569466e-4, 2.50000012e-4, 7.90569466e-5],
        );
        close(&[yarn(true).attention_factor], &[1.138_629_436_111_989]);
        let long = Scaling::LongRope(LongRope {
            short_factor: vec![1.0, 1.5, 2.0, 2.5],
            long_factor: vec![2.0, 3.0, 4.0, 5.0],
            original_max_position_embeddings: 16,
            attention_factor: 1.0,
        });
        let (short, beyond) = long.frequencies(&plain(8, 1e4), 1e4);
        close(&short, &[1.0, 0.0666666701, 0.005, 4e-4]);
        close(&beyond.unwrap().1, &[0.5, 0.0333333351, 0.0025, 2e-4]);
        close(&Scaling::Linear(8.0).frequencies(&[1.0, 0.5], 1e4).0, &[0.125, 0.0625]);
    }
}
