use super::*;
use serde_json::Value;

/// The rows of tests/reference/quants.py, from the same integers.
fn row(case: &str, number: usize, n: usize) -> Vec<f32> {
    let mut s = 0x9E37_79B9u32 ^ (number as u32 + 1);
    let mut next = || {
        s ^= s << 13;
        s ^= s >> 17;
        s ^= s << 5;
        s
    };
    let numbers: Vec<[u32; 4]> = (0..n).map(|_| [next(), next(), next(), next()]).collect();
    let one = |i: usize, b: &[u32; 4]| {
        let uniform = ((b[0] >> 8) as i32 - (1 << 23)) as f32 / 8_388_608.0;
        let bell = (b.iter().map(|b| (b >> 16) as i32).sum::<i32>() - (1 << 17)) as f32 / 2_097_152.0;
        match case {
            "uniform" => uniform,
            "bell" => bell,
            "outliers" if i.is_multiple_of(97) => bell * 32.0,
            "outliers" => bell,
            "sparse" if b[1].is_multiple_of(5) => bell,
            "mixed_scales" => bell * 2f32.powi(-((i / 16 % 24) as i32)),
            "positive" => uniform.abs() + 0.25,
            "negative" => -uniform.abs(),
            "constant" => 0.37,
            "zeros" if i % 2 == 1 => -0.0,
            "tiny" => uniform * 2f32.powi(-60),
            "denormal" => uniform * f32::from_bits(1 << 16),
            "halves" => ((b[0] % 255) as f32 - 127.0) / 2.0,
            "one" if i % 256 == 77 => -1.5,
            "steps" => (b[0] % 31) as f32 - 15.0,
            _ => 0.0,
        }
    };
    numbers.iter().enumerate().map(|(i, b)| one(i, b)).collect()
}

fn fnv(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xCBF2_9CE4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01B3));
    format!("{hash:016x}")
}

#[test]
fn every_type_stores_the_bytes_that_llama_cpp_stores() {
    let fixture: Value = serde_json::from_str(include_str!("../../../tests/fixtures/quants.json")).unwrap();
    let n = fixture["columns"].as_u64().unwrap() as usize;
    let mut wrong = Vec::new();
    for (number, (case, digests)) in fixture["rows"].as_object().unwrap().iter().enumerate() {
        let x = row(case, number, n);
        let input: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(digests["input"], fnv(&input), "the row itself: {case}");
        for (kind, ..) in TABLE {
            let mut out = vec![0xAAu8; kind.bytes(n)];
            quantize(kind, &x, &mut out).unwrap();
            if digests[kind.name()] != fnv(&out) {
                wrong.push(format!("{case} {}", kind.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_table_is_in_the_order_of_the_kinds_and_numbers_go_both_ways() {
    for (i, (kind, id, ..)) in TABLE.iter().enumerate() {
        assert_eq!(*kind as usize, i);
        assert_eq!(Kind::of_id(*id), Some(*kind));
    }
    assert_eq!(Kind::of_id(4), None);
}

#[test]
fn what_no_type_can_hold_is_refused() {
    let mut out = vec![0; Kind::Q4K.bytes(256)];
    assert!(quantize(Kind::Q4K, &[0.0; 128], &mut out[..72]).is_err());
    let mut x = [1f32; 256];
    x[200] = f32::NAN;
    assert!(quantize(Kind::Q4K, &x, &mut out).unwrap_err().to_string().contains("not a number"));
    x[200] = 65520.0;
    assert!(quantize(Kind::F16, &x, &mut vec![0; 512]).unwrap_err().to_string().contains("too large for f16"));
    x[200] = 65519.0;
    quantize(Kind::F16, &x, &mut vec![0; 512]).unwrap();
}

#[test]
fn what_is_stored_reads_back_near_what_it_was() {
    let x = row("bell", 1, 2048);
    let within = [(Kind::Q8_0, 0.01), (Kind::Q6K, 0.03), (Kind::Q4K, 0.1), (Kind::Q3K, 0.2), (Kind::Q2K, 0.35)];
    for (kind, within) in within {
        let mut out = vec![0; kind.bytes(x.len())];
        quantize(kind, &x, &mut out).unwrap();
        let back = crate::model::convert::dequantize(&out, ggml(kind), x.len()).unwrap();
        let error: f32 = x.iter().zip(&back).map(|(a, b)| (a - b).powi(2)).sum();
        let norm: f32 = x.iter().map(|a| a * a).sum();
        assert!((error / norm).sqrt() < within, "{kind:?}: {}", (error / norm).sqrt());
    }
}

fn ggml(kind: Kind) -> candle_core::quantized::GgmlDType {
    use candle_core::quantized::GgmlDType as G;
    match kind {
        Kind::Q8_0 => G::Q8_0,
        Kind::Q6K => G::Q6K,
        Kind::Q4K => G::Q4K,
        Kind::Q3K => G::Q3K,
        _ => G::Q2K,
    }
}
