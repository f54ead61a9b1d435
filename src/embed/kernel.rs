//! The update of one window, where all the time goes.
//!
//! Skip-gram predicts the word in the middle of a window (the positive *output*, and a few negative
//! ones, or the path of its Huffman code) from every word around it (the *inputs*; with PV-DBOW the
//! document as well). Each input with each output is one logistic regression step. As in Ji et al.
//! 2016 ("Parallelizing Word2Vec in Shared and Distributed Memory") the inputs of a window share
//! their negative outputs, so that the window is three small matrix products instead of many dot
//! products: with c inputs, o outputs and d dimensions 6 c o d operations on (c + o) d numbers.
//!
//! The definition, all of it from the values before the update, is
//!
//! ```text
//! e[c][o]  = alpha * (label[o] - sigmoid(input[c] . output[o]))
//! input[c]  += sum over o of e[c][o] * output[o]
//! output[o] += sum over c of e[c][o] * input[c]
//! ```
//!
//! with every sum in index order, by fused multiply-add. Rows that occur twice get both sums.

use super::lanes::portable::Portable;
use super::lanes::{Chunk, Isa, Lanes, Place, WIDTH};

/// Memory that windows use again and again.
#[derive(Debug, Default)]
pub struct Scratch {
    errors: Vec<f32>,
    input_sums: Vec<Chunk>,
    output_sums: Vec<Chunk>,
}

/// One window: rows of equal width, and one label (1 or 0) for each output.
#[derive(Debug)]
pub struct Window<'a, P> {
    /// Rows that predict.
    pub inputs: &'a [&'a [P]],
    /// Rows that are predicted.
    pub outputs: &'a [&'a [P]],
    /// What each output should be.
    pub labels: &'a [f32],
    /// The learning rate.
    pub alpha: f32,
}

/// Updates all rows of a window. The same bits for every `isa`; the caller got it from [`Isa`].
pub fn update<P: Place>(isa: Isa, window: &Window<'_, P>, scratch: &mut Scratch) {
    assert_eq!(window.outputs.len(), window.labels.len());
    match isa {
        // SAFETY: `Isa` has these values only where the CPU was asked.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { with_avx512(window, scratch) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { with_avx2(window, scratch) },
        _ => update_with::<Portable, P>(window, scratch),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn with_avx512<P: Place>(window: &Window<'_, P>, scratch: &mut Scratch) {
    update_with::<super::lanes::avx512::Avx512, P>(window, scratch);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<P: Place>(window: &Window<'_, P>, scratch: &mut Scratch) {
    update_with::<super::lanes::avx2::Avx2, P>(window, scratch);
}

/// Outputs that are held in registers together.
const GROUP: usize = 6;

/// Calls `$f::<L, P, G>(...)` with G the number of outputs of a group.
macro_rules! by_group {
    ($len:expr, $f:ident ( $($arg:expr),* )) => {
        match $len {
            1 => $f::<L, P, 1>($($arg),*),
            2 => $f::<L, P, 2>($($arg),*),
            3 => $f::<L, P, 3>($($arg),*),
            4 => $f::<L, P, 4>($($arg),*),
            5 => $f::<L, P, 5>($($arg),*),
            _ => $f::<L, P, GROUP>($($arg),*),
        }
    };
}

#[inline(always)]
fn update_with<L: Lanes, P: Place>(window: &Window<'_, P>, scratch: &mut Scratch) {
    let Window { inputs, outputs, labels, alpha } = *window;
    let (Some(first), false) = (inputs.first(), outputs.is_empty()) else { return };
    let width = first.len();
    let Scratch { errors, input_sums, output_sums } = scratch;
    let scores = (inputs.len() * outputs.len()).next_multiple_of(WIDTH);
    errors.resize(scores, 0.0);
    input_sums.resize(inputs.len(), Chunk::default());
    output_sums.resize(outputs.len(), Chunk::default());
    for (group, rows) in outputs.chunks(GROUP).enumerate() {
        by_group!(rows.len(), dots(inputs, rows, width, &mut errors[group * GROUP..], outputs.len()));
    }
    errors.as_chunks_mut::<WIDTH>().0.iter_mut().for_each(sigmoid);
    for row in errors.chunks_exact_mut(outputs.len()).take(inputs.len()) {
        row.iter_mut().zip(labels).for_each(|(e, label)| *e = alpha * (label - *e));
    }
    for j in 0..width {
        input_sums.fill(Chunk::default());
        for (group, rows) in outputs.chunks(GROUP).enumerate() {
            let errors = &errors[group * GROUP..];
            let sums = &mut output_sums[group * GROUP..];
            by_group!(rows.len(), gradients(inputs, rows, j, errors, outputs.len(), input_sums, sums));
        }
        for (row, sum) in inputs.iter().zip(input_sums.iter()) {
            row[j].set(row[j].get::<L>().add(L::load(sum)));
        }
        for (row, sum) in outputs.iter().zip(output_sums.iter()) {
            row[j].set(row[j].get::<L>().add(L::load(sum)));
        }
    }
}

/// Dot products of all inputs with the outputs of a group; `stride` outputs for each input.
#[inline(always)]
fn dots<L: Lanes, P: Place, const G: usize>(
    inputs: &[&[P]],
    outputs: &[&[P]],
    width: usize,
    scores: &mut [f32],
    stride: usize,
) {
    let outputs: [&[P]; G] = std::array::from_fn(|o| &outputs[o][..width]);
    let mut begin = 0;
    while begin < inputs.len() {
        let scores = &mut scores[begin * stride..];
        begin += match inputs.len() - begin {
            4.. => dot_tile::<L, P, 4, G>(&inputs[begin..], &outputs, width, scores, stride),
            2 | 3 => dot_tile::<L, P, 2, G>(&inputs[begin..], &outputs, width, scores, stride),
            _ => dot_tile::<L, P, 1, G>(&inputs[begin..], &outputs, width, scores, stride),
        };
    }
}

#[inline(always)]
fn dot_tile<L: Lanes, P: Place, const T: usize, const G: usize>(
    inputs: &[&[P]],
    outputs: &[&[P]; G],
    width: usize,
    scores: &mut [f32],
    stride: usize,
) -> usize {
    let inputs: [&[P]; T] = std::array::from_fn(|t| &inputs[t][..width]);
    let mut sums = [[L::splat(0.0); G]; T];
    for j in 0..width {
        let columns: [L; G] = std::array::from_fn(|o| outputs[o][j].get());
        for t in 0..T {
            let x: L = inputs[t][j].get();
            for o in 0..G {
                sums[t][o] = x.mul_add(columns[o], sums[t][o]);
            }
        }
    }
    for t in 0..T {
        let row = &mut scores[t * stride..][..G];
        for o in 0..G {
            row[o] = sums[t][o].sum();
        }
    }
    T
}

/// Column `j` of both products with the errors: for all inputs, and the outputs of a group.
#[inline(always)]
fn gradients<L: Lanes, P: Place, const G: usize>(
    inputs: &[&[P]],
    outputs: &[&[P]],
    j: usize,
    errors: &[f32],
    stride: usize,
    input_sums: &mut [Chunk],
    output_sums: &mut [Chunk],
) {
    let columns: [L; G] = std::array::from_fn(|o| outputs[o][j].get());
    let mut sums = [L::splat(0.0); G];
    for (c, (row, input_sum)) in inputs.iter().zip(input_sums).enumerate() {
        let errors = &errors[c * stride..][..G];
        let x: L = row[j].get();
        let mut sum = L::load(input_sum);
        for o in 0..G {
            let e = L::splat(errors[o]);
            sum = e.mul_add(columns[o], sum);
            sums[o] = e.mul_add(x, sums[o]);
        }
        sum.store(input_sum);
    }
    for o in 0..G {
        sums[o].store(&mut output_sums[o]);
    }
}

/// 1 / (1 + exp(-x)), to about 2e-7, in the same few operations everywhere: the mathematics library
/// of the system may give other last bits on another machine.
#[inline(always)]
pub fn sigmoid(lanes: &mut [f32; WIDTH]) {
    // 2^y = 2^n * 2^f with n the nearest integer, which adding 1.5 * 2^23 leaves in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    const L: f64 = std::f64::consts::LN_2;
    // ln(2)^k / k!
    const SERIES: [f32; 6] = [
        (L * L * L * L * L * L / 720.0) as f32,
        (L * L * L * L * L / 120.0) as f32,
        (L * L * L * L / 24.0) as f32,
        (L * L * L / 6.0) as f32,
        (L * L / 2.0) as f32,
        L as f32,
    ];
    for x in lanes.iter_mut() {
        let y = x.clamp(-60.0, 60.0) * -std::f32::consts::LOG2_E;
        let shifted = y + SHIFT;
        let f = y - (shifted - SHIFT);
        let power = SERIES.iter().fold(0.0f32, |sum, term| sum.mul_add(f, *term)).mul_add(f, 1.0);
        let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
        *x = 1.0 / (1.0 + power * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::lanes::SharedChunk;
    use crate::embed::random::Stream;
    use proptest::prelude::*;
    use std::cell::Cell;

    type Rows = Vec<Vec<[f32; WIDTH]>>;

    fn rows(stream: &mut Stream, n: usize, width: usize, scale: f32) -> Rows {
        let mut chunk = || std::array::from_fn(|_| (stream.unit() - 0.5) * scale);
        (0..n).map(|_| (0..width).map(|_| chunk()).collect()).collect()
    }

    /// The definition, element by element.
    fn plainly(inputs: &Rows, outputs: &Rows, labels: &[f32], alpha: f32) -> (Rows, Rows) {
        let mut errors = vec![vec![0f32; outputs.len()]; inputs.len()];
        for (c, input) in inputs.iter().enumerate() {
            for (o, output) in outputs.iter().enumerate() {
                let mut lanes = [0f32; WIDTH];
                for (x, y) in input.iter().zip(output) {
                    (0..WIDTH).for_each(|l| lanes[l] = x[l].mul_add(y[l], lanes[l]));
                }
                let eight: Vec<_> = (0..8).map(|l| lanes[l] + lanes[l + 8]).collect();
                let four: Vec<_> = (0..4).map(|l| eight[l] + eight[l + 4]).collect();
                let mut score = [(four[0] + four[2]) + (four[1] + four[3]); WIDTH];
                sigmoid(&mut score);
                errors[c][o] = alpha * (labels[o] - score[0]);
            }
        }
        let (mut new_inputs, mut new_outputs) = (inputs.clone(), outputs.clone());
        for j in 0..inputs[0].len() {
            for l in 0..WIDTH {
                for c in 0..inputs.len() {
                    let sum =
                        (0..outputs.len()).fold(0f32, |sum, o| errors[c][o].mul_add(outputs[o][j][l], sum));
                    new_inputs[c][j][l] += sum;
                }
                for o in 0..outputs.len() {
                    let sum =
                        (0..inputs.len()).fold(0f32, |sum, c| errors[c][o].mul_add(inputs[c][j][l], sum));
                    new_outputs[o][j][l] += sum;
                }
            }
        }
        (new_inputs, new_outputs)
    }

    fn run<P: Place>(
        isa: Isa,
        (inputs, outputs): (&Rows, &Rows),
        labels: &[f32],
        make: impl Fn([f32; WIDTH]) -> P,
        read: impl Fn(&P) -> [f32; WIDTH],
    ) -> (Rows, Rows) {
        let place = |rows: &Rows| -> Vec<Vec<P>> {
            rows.iter().map(|row| row.iter().map(|chunk| make(*chunk)).collect()).collect()
        };
        let (x, y) = (place(inputs), place(outputs));
        let (inputs, outputs): (Vec<&[P]>, Vec<&[P]>) =
            (x.iter().map(Vec::as_slice).collect(), y.iter().map(Vec::as_slice).collect());
        update(
            isa,
            &Window { inputs: &inputs, outputs: &outputs, labels, alpha: 0.025 },
            &mut Scratch::default(),
        );
        let back = |rows: &Vec<Vec<P>>| rows.iter().map(|row| row.iter().map(&read).collect()).collect();
        (back(&x), back(&y))
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_bits_of_the_definition(
            (c, o, width) in (1usize..19, 1usize..15, 1usize..6),
            seed in any::<u64>(),
            scale in prop::sample::select(vec![1e-3f32, 1.0, 30.0]),
        ) {
            let mut stream = Stream::new([seed, 0, 0, 0]);
            let (x, y) = (rows(&mut stream, c, width, scale), rows(&mut stream, o, width, scale));
            let labels: Vec<f32> = (0..o).map(|_| (stream.bits() & 1) as f32).collect();
            let expected = plainly(&x, &y, &labels, 0.025);
            for isa in Isa::all() {
                let alone = run(isa, (&x, &y), &labels, |c| Cell::new(Chunk(c)), |p| p.get().0);
                prop_assert!(alone == expected, "{isa:?}");
                let shared = run(isa, (&x, &y), &labels, SharedChunk::new, SharedChunk::get);
                prop_assert!(shared == expected, "{isa:?}, shared");
            }
        }
    }

    #[test]
    fn a_row_that_occurs_twice_gets_both_sums() {
        for isa in Isa::all() {
            let place = |value: f32| Cell::new(Chunk([value; WIDTH]));
            let (x, y) = ([place(0.5)], [place(0.25)]);
            let window = Window {
                inputs: &[&x, &x],
                outputs: &[&y[..], &y, &y],
                labels: &[1.0, 0.0, 0.0],
                alpha: 0.5,
            };
            update(isa, &window, &mut Scratch::default());
            let mut score = [16.0 * 0.5 * 0.25; WIDTH];
            sigmoid(&mut score);
            let e = 0.5 * (1.0 - score[0]) - score[0];
            assert!((x[0].get().0[3] - (0.5 + 2.0 * e * 0.25)).abs() < 1e-6);
            assert!((y[0].get().0[3] - (0.25 + 2.0 * e * 0.5)).abs() < 1e-6);
        }
    }

    #[test]
    fn sigmoid_is_close_to_the_function() {
        for i in -4000..=4000 {
            let x = i as f32 / 40.0;
            let mut lanes = [x; WIDTH];
            sigmoid(&mut lanes);
            let expected = 1.0 / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(lanes[0]) - expected).abs() < 2.5e-7, "{x}: {} {expected}", lanes[0]);
        }
        let mut odd = [f32::INFINITY; WIDTH];
        odd[0] = f32::NEG_INFINITY;
        odd[1] = f32::NAN;
        sigmoid(&mut odd);
        assert!(odd[0] < 1e-20 && odd[1].is_nan() && odd[2] == 1.0);
    }
}
