use super::*;
use crate::ops::check::*;
use crate::ops::matmul::{matmul, matmul_to_};
use candle_core::Device;
use candle_core::quantized::QTensor;

const KINDS: [Kind; 13] = [
    Kind::F32,
    Kind::F16,
    Kind::BF16,
    Kind::Q4_0,
    Kind::Q4_1,
    Kind::Q5_0,
    Kind::Q5_1,
    Kind::Q8_0,
    Kind::Q2K,
    Kind::Q3K,
    Kind::Q4K,
    Kind::Q5K,
    Kind::Q6K,
];

/// Random numbers, stored.
fn stored(kind: Kind, rows: usize, cols: usize, seed: u64) -> Packed {
    let q = QTensor::quantize(&random(&[rows, cols], seed), kind).unwrap();
    Packed::blocks(kind, rows, cols, q.data().unwrap().to_vec().into()).unwrap()
}

fn nf4(rows: usize, cols: usize, seed: u64) -> Packed {
    let w = random(&[rows, cols], seed).flatten_all().unwrap().to_vec1::<f32>().unwrap();
    Packed::nf4(Nf4::quantize(&w, rows, cols).unwrap())
}

#[test]
fn products_with_every_type_are_those_with_the_dequantized_matrix_to_the_bit() {
    let (rows, cols) = (96, 512);
    let mut all: Vec<Packed> = KINDS.iter().map(|k| stored(*k, rows, cols, 5)).collect();
    all.push(nf4(rows, cols, 5));
    // Several types, one under the other, and a head's halves in turn.
    all.push(
        Packed::stack(vec![stored(Kind::Q4K, 64, cols, 6), nf4(32, cols, 7), stored(Kind::Q8_0, 8, cols, 8)]).unwrap(),
    );
    all.push(stored(Kind::Q6K, rows, cols, 9).straightened(32).unwrap());
    for w in &all {
        let wide = w.to_tensor().unwrap();
        for t in [1, 3, 70] {
            let (x, dy) = (random(&[t, cols], 1), random(&[t, w.rows()], 2));
            let want = matmul(&x, &wide.t().unwrap()).unwrap();
            assert_eq!(f64s(&w.times_transposed(&x).unwrap()), f64s(&want), "{w:?}");
            let (dx, want) = (random(&[t, cols + 3], 3), random(&[t, cols + 3], 3));
            w.times_to_(&dx.narrow(1, 2, cols).unwrap(), &dy).unwrap();
            matmul_to_(&want.narrow(1, 2, cols).unwrap(), 1.0, &dy, &wide).unwrap();
            assert_eq!(f64s(&dx), f64s(&want), "{w:?}");
        }
        let picked = f64s(&w.gather(&[3, 0, 71]).unwrap());
        let rows: Vec<Vec<f32>> = [3, 0, 71].map(|i| wide.get(i).unwrap().to_vec1().unwrap()).into();
        assert_eq!(picked, rows.concat().iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
    }
}

#[test]
fn a_matrix_of_several_tiles_is_multiplied_as_a_whole_one() {
    let (rows, cols) = (2 * TILE / 4096 + 5, 4096);
    let w = stored(Kind::Q4_0, rows, cols, 5);
    let wide = w.to_tensor().unwrap();
    let (x, dy) = (random(&[6, cols], 1), random(&[6, rows], 2));
    close(&f64s(&w.times_transposed(&x).unwrap()), &f64s(&matmul(&x, &wide.t().unwrap()).unwrap()), 1e-6);
    let dx = random(&[6, cols], 3);
    w.times_to_(&dx, &dy).unwrap();
    close(&f64s(&dx), &f64s(&matmul(&dy, &wide).unwrap()), 1e-5);
    let again = random(&[6, cols], 4);
    w.times_to_(&again, &dy).unwrap();
    assert_eq!(f64s(&again), f64s(&dx));
}

#[test]
fn rows_of_heads_that_llama_cpp_interleaves_are_read_in_order() {
    let t = Tensor::arange(0f32, 16., &Device::Cpu).unwrap().reshape((16, 1)).unwrap();
    let w = Packed::floats(&t).unwrap().straightened(8).unwrap();
    let found = w.to_tensor().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    // convert_hf_to_gguf.py's permute puts rows 0 4 1 5 2 6 3 7 of a head of 8 at 0, 1, 2 …
    assert_eq!(found[..8], [0., 2., 4., 6., 1., 3., 5., 7.]);
    assert_eq!(found[8..], [8., 10., 12., 14., 9., 11., 13., 15.]);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    assert!(Packed::blocks(Kind::Q4_0, 2, 48, vec![0; 54].into()).is_err());
    assert!(Packed::blocks(Kind::Q4_0, 2, 64, vec![0; 71].into()).is_err());
    assert!(Packed::blocks(Kind::Q8K, 1, 256, vec![0; 292].into()).is_err());
    assert!(Packed::blocks(Kind::F32, 0, 8, vec![].into()).is_err());
    assert!(Packed::blocks(Kind::F32, 6, 1, vec![0; 24].into()).unwrap().straightened(4).is_err());
    assert!(Packed::stack(vec![nf4(2, 64, 1), nf4(2, 128, 1)]).is_err());
    let w = nf4(4, 64, 1);
    assert!(w.times_transposed(&random(&[2, 63], 1)).is_err());
    assert!(w.times_to_(&random(&[2, 64], 1), &random(&[2, 5], 1)).is_err());
}
