//! Training on one document: its words in random windows.

use super::kernel::{Scratch, Window, update};
use super::lanes::{Isa, Place};
use super::options::Options;
use super::random::Stream;
use super::vocabulary::{Huffman, Negatives, Vocabulary};

/// What words are predicted against.
#[derive(Debug, Clone)]
pub enum Outputs {
    /// Words that are not there.
    Negatives(Negatives, u32),
    /// Huffman codes.
    Codes(Huffman),
}

/// The rows of a model in memory that one or several threads change.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a, P> {
    /// One row for each word: its vector.
    pub words: &'a [P],
    /// One row for each word or inner node: what words are predicted with.
    pub outputs: &'a [P],
    /// Chunks of a row.
    pub width: usize,
}

impl<'a, P> Tables<'a, P> {
    fn word(&self, row: u32) -> &'a [P] {
        &self.words[row as usize * self.width..][..self.width]
    }

    fn output(&self, row: u32) -> &'a [P] {
        &self.outputs[row as usize * self.width..][..self.width]
    }
}

/// What all documents have in common.
#[derive(Debug, Clone, Copy)]
pub struct Lesson<'a> {
    /// The options.
    pub options: &'a Options,
    /// The known words.
    pub vocabulary: &'a Vocabulary,
    /// What they are predicted against.
    pub outputs: &'a Outputs,
    /// Instructions to use.
    pub isa: Isa,
}

/// Memory that documents use again and again.
#[derive(Debug, Default)]
pub struct Desk {
    /// Token ids of the document.
    pub tokens: Vec<u32>,
    kept: Vec<u32>,
    scratch: Scratch,
    labels: Vec<f32>,
}

/// Inputs that are updated together. All of them push the same outputs from where these were before:
/// too many at once would push them past where they should be.
const BATCH: usize = 16;

impl Lesson<'_> {
    /// Trains on the tokens on the desk. `document` is the document's own row, if it has one.
    ///
    /// As in word2vec and gensim: frequent words are skipped at random; the window shrinks at random
    /// for each word; the word in the middle is predicted from each word around it, and from the
    /// document.
    pub fn document<'a, P: Place>(
        &self,
        desk: &mut Desk,
        tables: &Tables<'a, P>,
        document: Option<&'a [P]>,
        stream: &mut Stream,
        alpha: f32,
    ) {
        let Desk { tokens, kept, scratch, labels } = desk;
        self.vocabulary.sub_sample(tokens, stream, kept);
        let mut inputs: Vec<&[P]> = Vec::new();
        let mut outputs: Vec<&[P]> = Vec::new();
        for (middle, word) in kept.iter().enumerate() {
            let reach = self.options.window as usize - stream.below(self.options.window) as usize;
            let around = middle.saturating_sub(reach)..kept.len().min(middle + reach + 1);
            inputs.clear();
            inputs.extend(document);
            inputs.extend(kept[around.start..middle].iter().map(|row| tables.word(*row)));
            inputs.extend(kept[middle + 1..around.end].iter().map(|row| tables.word(*row)));
            if inputs.is_empty() {
                continue;
            }
            outputs.clear();
            labels.clear();
            match self.outputs {
                Outputs::Negatives(negatives, n) => {
                    outputs.push(tables.output(*word));
                    for _ in 0..*n {
                        let other = negatives.draw(stream);
                        if other != *word {
                            outputs.push(tables.output(other));
                        }
                    }
                    labels.resize(outputs.len(), 0.0);
                    labels[0] = 1.0;
                }
                Outputs::Codes(codes) => {
                    let (nodes, turns) = codes.path(*word);
                    outputs.extend(nodes.iter().map(|node| tables.output(*node)));
                    labels.extend_from_slice(turns);
                }
            }
            for inputs in inputs.chunks(BATCH) {
                update(self.isa, &Window { inputs, outputs: &outputs, labels, alpha }, scratch);
            }
        }
    }
}
