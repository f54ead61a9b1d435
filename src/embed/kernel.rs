//! The update of one pair of words, where all the time goes.
//!
//! Skip-gram predicts the word in the middle of a window (the positive *output*, and a few negative
//! ones, or the path of its Huffman code) from a word around it (the *input*; with PV-DBOW the
//! document as well). The input with each output is one logistic regression step. As in word2vec
//! (Mikolov et al. 2013) every pair draws negative outputs of its own and sees what the pair before
//! it changed.
//!
//! Outputs are taken in groups of [`GROUP`], in order. For the outputs of a group
//!
//! ```text
//! e[o]       = alpha * (label[o] - sigmoid(input . output[o])), or 0 beyond +-MAX_SCORE
//! sum       += e[o] * output[o]
//! output[o] += e[o] * input
//! ```
//!
//! with all e of a group from the values before it and the rest output by output; after the last
//! group `input += sum`. Sums are in index order, by fused multiply-add. An output that occurs twice
//! in a group is moved twice.

use super::lanes::portable::Portable;
use super::lanes::{Chunk, Isa, Lanes, Place, WIDTH};

/// Memory that pairs use again and again.
#[derive(Debug, Default)]
pub struct Scratch {
    sums: Vec<Chunk>,
}

/// One input and its outputs: rows of equal width, and one label (1 or 0) for each output.
#[derive(Debug)]
pub struct Pair<'a, P> {
    /// The row that predicts; none of the outputs.
    pub input: &'a [P],
    /// Rows that are predicted.
    pub outputs: &'a [&'a [P]],
    /// What each output should be.
    pub labels: &'a [f32],
    /// The learning rate.
    pub alpha: f32,
}

/// Outputs that score this much or more, in either direction, are as they are for good: word2vec's
/// table of the sigmoid ends here, and it leaves such outputs alone whatever their label.
pub const MAX_SCORE: f32 = 6.0;

/// Updates all rows of a pair. The same bits for every `isa`; the caller got it from [`Isa`].
pub fn update<P: Place>(isa: Isa, pair: &Pair<'_, P>, scratch: &mut Scratch) {
    assert_eq!(pair.outputs.len(), pair.labels.len());
    match isa {
        // SAFETY: `Isa` has these values only where the CPU was asked.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { with_avx512(pair, scratch) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { with_avx2(pair, scratch) },
        _ => update_with::<Portable, P>(pair, scratch),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn with_avx512<P: Place>(pair: &Pair<'_, P>, scratch: &mut Scratch) {
    update_with::<super::lanes::avx512::Avx512, P>(pair, scratch);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<P: Place>(pair: &Pair<'_, P>, scratch: &mut Scratch) {
    update_with::<super::lanes::avx2::Avx2, P>(pair, scratch);
}

/// Outputs whose scores are held in registers together.
pub const GROUP: usize = 6;

#[inline(always)]
fn update_with<L: Lanes, P: Place>(pair: &Pair<'_, P>, scratch: &mut Scratch) {
    let Pair { input, outputs, labels, alpha } = *pair;
    let sums = &mut scratch.sums;
    sums.clear();
    sums.resize(input.len(), Chunk::default());
    for (outputs, labels) in outputs.chunks(GROUP).zip(labels.chunks(GROUP)) {
        match outputs.len() {
            1 => group::<L, P, 1>(input, outputs, labels, alpha, sums),
            2 => group::<L, P, 2>(input, outputs, labels, alpha, sums),
            3 => group::<L, P, 3>(input, outputs, labels, alpha, sums),
            4 => group::<L, P, 4>(input, outputs, labels, alpha, sums),
            5 => group::<L, P, 5>(input, outputs, labels, alpha, sums),
            _ => group::<L, P, GROUP>(input, outputs, labels, alpha, sums),
        }
    }
    for (place, sum) in input.iter().zip(sums.iter()) {
        place.set(place.get::<L>().add(L::load(sum)));
    }
}

#[inline(always)]
fn group<L: Lanes, P: Place, const G: usize>(
    input: &[P],
    outputs: &[&[P]],
    labels: &[f32],
    alpha: f32,
    sums: &mut [Chunk],
) {
    let outputs: [&[P]; G] = std::array::from_fn(|o| &outputs[o][..input.len()]);
    let mut scores = [L::splat(0.0); G];
    for (j, place) in input.iter().enumerate() {
        let x: L = place.get();
        for o in 0..G {
            scores[o] = x.mul_add(outputs[o][j].get(), scores[o]);
        }
    }
    let mut errors = [0f32; WIDTH];
    (0..G).for_each(|o| errors[o] = scores[o].sum());
    let beyond: [bool; G] = std::array::from_fn(|o| errors[o].abs() >= MAX_SCORE);
    sigmoid(&mut errors);
    let errors: [L; G] =
        std::array::from_fn(|o| L::splat(if beyond[o] { 0.0 } else { alpha * (labels[o] - errors[o]) }));
    for (j, (place, total)) in input.iter().zip(sums).enumerate() {
        let x: L = place.get();
        let mut sum = L::load(total);
        for o in 0..G {
            let y: L = outputs[o][j].get();
            sum = errors[o].mul_add(y, sum);
            outputs[o][j].set(errors[o].mul_add(x, y));
        }
        sum.store(total);
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

    type Row = Vec<[f32; WIDTH]>;

    fn row(stream: &mut Stream, width: usize, scale: f32) -> Row {
        (0..width).map(|_| std::array::from_fn(|_| (stream.unit() - 0.5) * scale)).collect()
    }

    /// The definition, element by element. Outputs are rows of `outputs`, some of them twice.
    fn plainly(
        input: &Row,
        outputs: &[Row],
        picked: &[usize],
        labels: &[f32],
        alpha: f32,
    ) -> (Row, Vec<Row>) {
        let mut outputs = outputs.to_vec();
        let mut sums = vec![[0f32; WIDTH]; input.len()];
        for (picked, labels) in picked.chunks(GROUP).zip(labels.chunks(GROUP)) {
            let error = |o: &usize, label: &f32| {
                let mut lanes = [0f32; WIDTH];
                for (x, y) in input.iter().zip(&outputs[*o]) {
                    (0..WIDTH).for_each(|l| lanes[l] = x[l].mul_add(y[l], lanes[l]));
                }
                let eight: Vec<_> = (0..8).map(|l| lanes[l] + lanes[l + 8]).collect();
                let four: Vec<_> = (0..4).map(|l| eight[l] + eight[l + 4]).collect();
                let score = (four[0] + four[2]) + (four[1] + four[3]);
                let mut chance = [score; WIDTH];
                sigmoid(&mut chance);
                if score.abs() >= 6.0 { 0.0 } else { alpha * (label - chance[0]) }
            };
            let errors: Vec<f32> = picked.iter().zip(labels).map(|(o, label)| error(o, label)).collect();
            for (o, e) in picked.iter().zip(errors) {
                for j in 0..input.len() {
                    for l in 0..WIDTH {
                        sums[j][l] = e.mul_add(outputs[*o][j][l], sums[j][l]);
                        outputs[*o][j][l] = e.mul_add(input[j][l], outputs[*o][j][l]);
                    }
                }
            }
        }
        let moved = |(x, sum): (&[f32; WIDTH], &[f32; WIDTH])| std::array::from_fn(|l| x[l] + sum[l]);
        (input.iter().zip(&sums).map(moved).collect(), outputs)
    }

    fn run<P: Place>(
        isa: Isa,
        (input, outputs): (&Row, &[Row]),
        picked: &[usize],
        labels: &[f32],
        make: impl Fn([f32; WIDTH]) -> P,
        read: impl Fn(&P) -> [f32; WIDTH],
    ) -> (Row, Vec<Row>) {
        let place = |row: &Row| -> Vec<P> { row.iter().map(|chunk| make(*chunk)).collect() };
        let (x, y) = (place(input), outputs.iter().map(place).collect::<Vec<_>>());
        let outputs: Vec<&[P]> = picked.iter().map(|o| y[*o].as_slice()).collect();
        update(
            isa,
            &Pair { input: &x, outputs: &outputs, labels, alpha: 0.025 },
            &mut Scratch { sums: vec![Chunk([7.0; WIDTH]); 9] },
        );
        let back = |row: &Vec<P>| -> Row { row.iter().map(&read).collect() };
        (back(&x), y.iter().map(back).collect())
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_bits_of_the_definition(
            (rows, width) in (1usize..9, 1usize..6),
            picked in prop::collection::vec(0usize..1000, 1..25),
            seed in any::<u64>(),
            scale in prop::sample::select(vec![1e-3f32, 1.0, 3.0, 30.0]),
        ) {
            let mut stream = Stream::new([seed, 0, 0, 0]);
            let picked: Vec<usize> = picked.into_iter().map(|o| o % rows).collect();
            let (x, y) = (row(&mut stream, width, scale), (0..rows).map(|_| row(&mut stream, width, scale)).collect::<Vec<_>>());
            let labels: Vec<f32> = picked.iter().map(|_| (stream.bits() & 1) as f32).collect();
            let expected = plainly(&x, &y, &picked, &labels, 0.025);
            for isa in Isa::all() {
                let alone = run(isa, (&x, &y), &picked, &labels, |c| Cell::new(Chunk(c)), |p| p.get().0);
                prop_assert!(alone == expected, "{isa:?}");
                let shared = run(isa, (&x, &y), &picked, &labels, SharedChunk::new, SharedChunk::get);
                prop_assert!(shared == expected, "{isa:?}, shared");
            }
        }
    }

    #[test]
    fn what_is_settled_stays() {
        for isa in Isa::all() {
            let place = |value: f32| [Cell::new(Chunk([value; WIDTH]))];
            // Scores of 6.4, -6.4 and 1.6: only the last still learns.
            let (x, settled, wrong, open) = (place(1.0), place(0.4), place(-0.4), place(0.1));
            let pair =
                Pair { input: &x, outputs: &[&settled, &wrong, &open], labels: &[1.0, 1.0, 0.0], alpha: 0.5 };
            update(isa, &pair, &mut Scratch::default());
            assert_eq!((settled[0].get(), wrong[0].get()), (Chunk([0.4; WIDTH]), Chunk([-0.4; WIDTH])));
            let e = -0.5 / (1.0 + (-1.6f32).exp());
            assert!((open[0].get().0[3] - (0.1 + e)).abs() < 1e-6);
            assert!((x[0].get().0[3] - (1.0 + e * 0.1)).abs() < 1e-6);
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
