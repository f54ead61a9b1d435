//! Training on one document: its words in random windows.

use super::kernel::{Pair, Scratch, update};
use super::lanes::{Isa, Place, fetch};
use super::marks::Marks;
use super::options::Options;
use super::random::Stream;
use super::vocabulary::{Huffman, Negatives, Vocabulary};
use std::ops::Range;

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
    /// Rows that were given out to be changed: those of words, then those of outputs.
    pub touched: &'a Marks,
    /// Number of words.
    pub known: usize,
}

impl<'a, P: Place> Tables<'a, P> {
    #[inline(always)]
    fn word(&self, row: u32) -> &'a [P] {
        self.touched.mark(row as usize);
        &self.words[row as usize * self.width..][..self.width]
    }

    #[inline(always)]
    fn output(&self, row: u32) -> &'a [P] {
        self.touched.mark(self.known + row as usize);
        &self.outputs[row as usize * self.width..][..self.width]
    }

    /// Tells the CPU that an output will be needed soon.
    #[inline(always)]
    fn expect(&self, row: u32) {
        fetch(&self.outputs[row as usize * self.width..][..self.width]);
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
    negatives: Vec<u32>,
}

impl Lesson<'_> {
    /// Trains on the tokens on the desk. `document` is the document's own row, if it has one. Of its
    /// known words `words` are predicted, from all around them.
    ///
    /// As in word2vec and gensim: frequent words are skipped at random; the window shrinks at random
    /// for each word; the word in the middle is predicted from each word around it, and from the
    /// document.
    pub fn document<'a, P: Place>(
        &self,
        desk: &mut Desk,
        tables: &Tables<'a, P>,
        document: Option<&'a [P]>,
        words: Range<u32>,
        stream: &mut Stream,
        alpha: f32,
    ) {
        let Desk { tokens, kept, scratch, labels, negatives } = desk;
        // All pieces of a document skip the same words; after that each draws for itself.
        let middles = self.vocabulary.sub_sample(tokens, stream, &words, kept);
        let stream = &mut stream.branch(words.start.into());
        let mut outputs: Vec<&[P]> = Vec::new();
        self.draw(tables, negatives, stream);
        for middle in middles {
            let word = &kept[middle];
            let reach = self.options.window as usize - stream.below(self.options.window) as usize;
            let around = middle.saturating_sub(reach)..kept.len().min(middle + reach + 1);
            let before = kept[around.start..middle].iter();
            let neighbours = before.chain(&kept[middle + 1..around.end]).map(|row| tables.word(*row));
            let inputs = document.into_iter().chain(neighbours);
            match self.outputs {
                Outputs::Negatives(..) => {
                    for input in inputs {
                        outputs.clear();
                        outputs.push(tables.output(*word));
                        let others = negatives.iter().filter(|other| *other != word);
                        outputs.extend(others.map(|other| tables.output(*other)));
                        labels.clear();
                        labels.resize(outputs.len(), 0.0);
                        labels[0] = 1.0;
                        self.draw(tables, negatives, stream);
                        update(self.isa, &Pair { input, outputs: &outputs, labels, alpha }, scratch);
                    }
                }
                Outputs::Codes(codes) => {
                    let (nodes, turns) = codes.path(*word);
                    outputs.clear();
                    outputs.extend(nodes.iter().map(|node| tables.output(*node)));
                    for input in inputs {
                        update(self.isa, &Pair { input, outputs: &outputs, labels: turns, alpha }, scratch);
                    }
                }
            }
        }
    }

    /// Draws the negatives of the next pair: their rows are on their way while this one is trained.
    #[inline(always)]
    fn draw<P: Place>(&self, tables: &Tables<'_, P>, drawn: &mut Vec<u32>, stream: &mut Stream) {
        drawn.clear();
        if let Outputs::Negatives(table, n) = self.outputs {
            drawn.extend((0..*n).map(|_| table.draw(stream)));
            drawn.iter().for_each(|row| tables.expect(*row));
        }
    }
}
