//! Training: shards side by side, merged in a fixed order.
//!
//! The documents are dealt out to a fixed number of *shards*, whatever the number of ranks and
//! threads. In each *round* every shard trains a copy of the model on its next documents; then the
//! changes of all shards are joined in shard order (see `merge.rs`), and the next round begins
//! from there. So the result depends on the number of shards and on the words between merges, both of which
//! are options, and not on who did the work.
//!
//! With `lock_free` a rank has one copy of the model that all its threads change at the same time
//! (Recht et al. 2011); ranks are merged as shards are. What threads overwrite of each other's work
//! depends on the moment, so a second run gives other bits.

use super::lanes::{Chunk, Isa, SharedChunk, WIDTH, chunks};
use super::marks::Marks;
use super::mean::Means;
use super::merge::{Replica, Rule, merge};
use super::options::{Options, Output};
use super::plan::{Item, Piece, Plan, Turn};
use super::random::Stream;
use super::skipgram::{Desk, Lesson, Outputs, Tables};
use super::vectors::normalise;
use super::vocabulary::{Huffman, Negatives, Vocabulary};
use super::{DocumentVectors, Error};
use crate::tokens::Documents;
use crate::world::World;
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// A model between two rounds. `weights` and `round` are the same on all ranks.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Rounds done, over all epochs.
    pub round: u64,
    /// Rows of words, then rows of outputs.
    pub weights: Vec<Chunk>,
    /// Rows of documents (in the order of [`Plan::dealt`]) of this rank's shards; empty if document
    /// vectors are not learned.
    pub documents: Vec<Chunk>,
}

/// Everything that training needs and does not change.
pub struct Trainer<'a> {
    /// The options.
    pub options: &'a Options,
    /// The documents.
    pub documents: &'a Documents,
    /// The known words.
    pub vocabulary: &'a Vocabulary,
    /// Who trains on what.
    pub plan: &'a Plan,
    /// Threads of a rank share one model without locks.
    pub lock_free: bool,
    outputs: Outputs,
    isa: Isa,
}

/// How training ended; the same on every rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All epochs are done.
    Done,
    /// A signal came.
    Stopped,
}

const WORD: u64 = 3;
const DOCUMENT: u64 = 4;
const ITEM: u64 = 5;

/// A random row, as in word2vec: even in (-1/2, 1/2) / dims.
fn fill(row: &mut [Chunk], dims: u32, mut stream: Stream) {
    let elements = row.iter_mut().flat_map(|chunk| chunk.0.iter_mut());
    elements.take(dims as usize).for_each(|x| *x = (stream.unit() - 0.5) / dims as f32);
}

impl<'a> Trainer<'a> {
    /// Prepares what is drawn from.
    pub fn new(
        options: &'a Options,
        documents: &'a Documents,
        vocabulary: &'a Vocabulary,
        plan: &'a Plan,
        lock_free: bool,
    ) -> Self {
        let outputs = match options.output {
            Output::Negatives(n) => Outputs::Negatives(Negatives::new(&vocabulary.counts), n),
            Output::Hierarchical => Outputs::Codes(Huffman::new(&vocabulary.counts)),
        };
        Self { options, documents, vocabulary, plan, lock_free, outputs, isa: Isa::best() }
    }

    /// Chunks of a row.
    pub fn width(&self) -> usize {
        chunks(self.options.dims as usize)
    }

    /// Rounds of all epochs.
    pub fn rounds(&self) -> u64 {
        u64::from(self.options.epochs) * u64::from(self.plan.rounds)
    }

    /// True if documents have rows of their own.
    pub fn learns_documents(&self) -> bool {
        self.options.documents == DocumentVectors::Learned
    }

    /// Rows of documents that a rank has.
    pub fn document_rows(&self, world: &World) -> Range<usize> {
        if !self.learns_documents() {
            return 0..0;
        }
        let shards = self.plan.shards_of(world.rank(), world.size());
        self.plan.bounds[shards.start]..self.plan.bounds[shards.end]
    }

    /// The model before the first round.
    pub fn begin(&self, world: &World) -> State {
        let (width, words) = (self.width(), self.vocabulary.len());
        let Options { dims, seed, .. } = *self.options;
        let mut weights = vec![Chunk::default(); (words + self.output_rows()) * width];
        weights[..words * width].par_chunks_mut(width).enumerate().for_each(|(row, chunks)| {
            fill(chunks, dims, Stream::new([seed, WORD, row as u64, 0]));
        });
        let rows = self.document_rows(world);
        let mut documents = vec![Chunk::default(); rows.len() * width];
        documents.par_chunks_mut(width).zip(&self.plan.dealt[rows]).for_each(|(chunks, document)| {
            fill(chunks, dims, Stream::new([seed, DOCUMENT, u64::from(*document), 0]));
        });
        State { round: 0, weights, documents }
    }

    fn output_rows(&self) -> usize {
        match self.outputs {
            Outputs::Negatives(..) => self.vocabulary.len(),
            Outputs::Codes(_) => self.vocabulary.len().saturating_sub(1),
        }
    }

    /// Trains all rounds that are left. Collective. `after_round` is called on every rank and may be
    /// collective itself.
    ///
    /// # Errors
    /// [`Error::Refused`] if the values grow beyond all bounds, and what `after_round` returns.
    pub fn train(
        &self,
        world: &World,
        state: &mut State,
        stop: &AtomicBool,
        mut after_round: impl FnMut(&State) -> Result<(), Error>,
    ) -> Result<Ended, Error> {
        let shards = self.plan.shards_of(world.rank(), world.size());
        let width = self.width();
        let mut replicas: Vec<Replica> =
            shards.clone().into_par_iter().map(|_| Replica::new(&state.weights, width)).collect();
        let rule = match self.options.output {
            Output::Negatives(_) => Rule::Sum,
            Output::Hierarchical => Rule::Mean,
        };
        let beat = world.heartbeat();
        let per_epoch = u64::from(self.plan.rounds);
        let mut turns: (Option<u32>, Vec<Turn>) = (None, Vec::new());
        while state.round < self.rounds() {
            let mut stopped = [u64::from(stop.load(Ordering::Relaxed))];
            world.max_u64(&mut stopped);
            if stopped[0] != 0 {
                return Ok(Ended::Stopped);
            }
            let epoch = (state.round / per_epoch) as u32;
            let round = (state.round % per_epoch) as u32;
            if turns.0 != Some(epoch) {
                let seed = self.options.seed;
                let made = shards.clone().into_par_iter().map(|s| self.plan.turn(s, epoch, seed));
                turns = (Some(epoch), made.collect());
            }
            let rows = self.document_rows(world);
            let mut rest = &mut state.documents[..];
            let mut parts = Vec::new();
            for shard in shards.clone() {
                let mine = self.plan.rows(shard);
                let length = if rows.is_empty() { 0 } else { mine.len() * width };
                let (part, after) = rest.split_at_mut(length);
                parts.push((mine.start, part));
                rest = after;
            }
            let jobs = replicas.par_iter_mut().zip(&turns.1).zip(parts);
            jobs.for_each(|((replica, turn), (first_row, documents))| {
                let span = Span { turn, epoch, pieces: turn.round(round), first_row };
                match self.lock_free {
                    false => self.alone(replica, documents, &span, &beat),
                    true => self.together(replica, documents, &span, &beat),
                }
            });
            merge(world, &mut state.weights, &mut replicas, width, self.plan, rule);
            world.progress();
            state.round += 1;
            if state.round.is_multiple_of(per_epoch) {
                self.check(world, state)?;
            }
            after_round(state)?;
        }
        Ok(Ended::Done)
    }

    fn check(&self, world: &World, state: &State) -> Result<(), Error> {
        let sound = |chunks: &[Chunk]| chunks.par_iter().all(|chunk| chunk.0.iter().all(|x| x.is_finite()));
        let mut wrong = [u64::from(!sound(&state.weights) || !sound(&state.documents))];
        world.max_u64(&mut wrong);
        match wrong[0] {
            0 => Ok(()),
            _ => Err(Error::Refused(format!(
                "the vectors grew beyond all bounds at a learning rate of {}: give a smaller --alpha, \
                 fewer --shards or fewer --merge-words",
                self.options.alpha
            ))),
        }
    }

    /// One thread trains a copy of its own.
    fn alone(&self, replica: &mut Replica, documents: &mut [Chunk], span: &Span<'_>, beat: &dyn Fn()) {
        let Replica { rows, touched } = replica;
        let rows = Cell::from_mut(&mut rows[..]).as_slice_of_cells();
        let documents = Cell::from_mut(documents).as_slice_of_cells();
        let mut desk = Desk::default();
        for piece in &span.turn.pieces[span.pieces.clone()] {
            self.piece((rows, touched), documents, span, piece, &mut desk);
            beat();
        }
    }

    /// All threads train the same copy.
    fn together(
        &self,
        replica: &mut Replica,
        documents: &mut [Chunk],
        span: &Span<'_>,
        beat: &(dyn Fn() + Sync),
    ) {
        let (rows, touched) = (SharedChunk::share(&mut replica.rows), &replica.touched);
        let documents = SharedChunk::share(documents);
        let pieces = span.turn.pieces[span.pieces.clone()].par_iter();
        pieces.for_each_init(Desk::default, |desk, piece| {
            self.piece((rows, touched), documents, span, piece, desk);
            beat();
        });
    }

    fn piece<P: super::lanes::Place>(
        &self,
        (rows, touched): (&[P], &Marks),
        documents: &[P],
        span: &Span<'_>,
        piece: &Piece,
        desk: &mut Desk,
    ) {
        let Options { epochs, alpha, min_alpha, seed, .. } = *self.options;
        let width = self.width();
        let Item { row, copy } = piece.item;
        let document = self.plan.dealt[row as usize];
        let known = self.vocabulary.len();
        let (words, outputs) = rows.split_at(known * width);
        let own =
            (!documents.is_empty()).then(|| &documents[(row as usize - span.first_row) * width..][..width]);
        // By documents, not words, as gensim counts: with few epochs the difference shows.
        let part = f64::from(piece.place) / f64::from(span.turn.documents);
        let done = (f64::from(span.epoch) + part) / f64::from(epochs);
        let rate = f64::from(alpha) - (f64::from(alpha) - f64::from(min_alpha)) * done;
        let mut stream =
            Stream::new([seed, ITEM + (u64::from(copy) << 8), u64::from(document), u64::from(span.epoch)]);
        self.documents.tokens_of(document as usize, &mut desk.tokens);
        let lesson = Lesson {
            options: self.options,
            vocabulary: self.vocabulary,
            outputs: &self.outputs,
            isa: self.isa,
        };
        let tables = Tables { words, outputs, width, touched, known };
        lesson.document(desk, &tables, own, piece.words.clone(), &mut stream, rate as f32);
    }

    /// The row of a word without its filling.
    pub fn word<'s>(&self, state: &'s State, row: usize) -> &'s [f32] {
        row_of(&state.weights, row, self.width(), self.options.dims)
    }
}

/// Unit vectors of the documents that were trained on, by their ids, from their rows in the order of
/// [`Plan::dealt`].
pub fn learned(trainer: &Trainer<'_>, rows: &[Chunk]) -> (Vec<u32>, Means) {
    let (dims, width) = (trainer.options.dims, trainer.width());
    let mut by_id: Vec<(u32, usize)> =
        trainer.plan.dealt.iter().enumerate().map(|(row, document)| (*document, row)).collect();
    by_id.sort_unstable();
    let mut means = Means { vectors: vec![0.0; by_id.len() * dims as usize], norms: vec![0.0; by_id.len()] };
    let units = means.vectors.par_chunks_mut(dims as usize).zip(&mut means.norms);
    units.zip(&by_id).for_each(|((unit, norm), (_, row))| {
        *norm = normalise(row_of(rows, *row, width, dims).iter().map(|x| f64::from(*x)), unit);
    });
    (by_id.into_iter().map(|(document, _)| document).collect(), means)
}

/// A row without its filling.
pub fn row_of(chunks: &[Chunk], row: usize, width: usize, dims: u32) -> &[f32] {
    let elements: &[f32] = bytemuck::cast_slice(&chunks[row * width..][..width]);
    debug_assert_eq!(elements.len(), width * WIDTH);
    &elements[..dims as usize]
}

/// What a shard does in a round.
struct Span<'a> {
    turn: &'a Turn,
    epoch: u32,
    pieces: Range<usize>,
    first_row: usize,
}
