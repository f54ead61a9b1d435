//! What can be chosen, and the presets.

use super::Error;
use serde::{Deserialize, Serialize};

/// How vectors are learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Skip-gram: words predict the words around them.
    Word2vec,
    /// PV-DBOW with words (gensim's `dbow_words=1`): documents predict their words, and words the
    /// words around them, in one space.
    Doc2vec,
}

/// What a word is predicted against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// So many words that are not there, drawn by frequency to the power of 3/4.
    Negatives(u32),
    /// The path of its Huffman code (Top2Vec's `learn`).
    Hierarchical,
}

/// Documents that are trained on, each once in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Corpus {
    /// The whole history of every image (or every Dockerfile); equal ones as often as they occur.
    Images,
    /// Each distinct one of them once.
    DistinctImages,
    /// The document of every layer, as often as it occurs.
    Layers,
    /// Each distinct one of them once.
    DistinctLayers,
    /// Every distinct document once, whether of an image or of a layer.
    All,
}

/// The order in which documents are trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// That of the corpus, in every epoch, as gensim reads a file.
    Corpus,
    /// Another random one in every epoch.
    Random,
}

/// Where document vectors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DocumentVectors {
    /// The mean of the vectors of their words; every document gets one.
    Mean,
    /// Learned with the words (doc2vec); the documents that were trained on have one.
    Learned,
}

/// Every option that changes the values of the vectors. Nothing else does, in the default mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// How vectors are learned.
    pub method: Method,
    /// Length of a vector.
    pub dims: u32,
    /// Words on each side that are predicted from, at most; each time a number up to it is drawn.
    pub window: u32,
    /// What a word is predicted against.
    pub output: Output,
    /// Words more frequent than this share are skipped at random; 0 skips none.
    pub sample: f64,
    /// Words that occur less often are left out.
    pub min_count: u64,
    /// At most so many words, the most frequent ones; 0 for all.
    pub max_vocabulary: u32,
    /// How often each document is trained on.
    pub epochs: u32,
    /// Learning rate at the beginning.
    pub alpha: f32,
    /// Learning rate at the end; it falls linearly.
    pub min_alpha: f32,
    /// Documents that are trained on.
    pub corpus: Corpus,
    /// The order of the documents.
    pub order: Order,
    /// Where document vectors come from.
    pub documents: DocumentVectors,
    /// Parts of the documents that are trained side by side.
    pub shards: u32,
    /// Words that each shard reads, roughly, before all are merged.
    pub merge_words: u64,
    /// Names all random numbers.
    pub seed: u64,
}

impl Options {
    /// The study's TensorFlow script: skip-gram, window 2, 4 negatives, 128 dimensions, 4,096 words,
    /// 20 epochs.
    pub fn tensorflow() -> Self {
        Self {
            method: Method::Word2vec,
            dims: 128,
            window: 2,
            output: Output::Negatives(4),
            sample: 1e-3,
            min_count: 1,
            max_vocabulary: 4096,
            epochs: 20,
            alpha: 0.025,
            min_alpha: 1e-4,
            corpus: Corpus::Images,
            order: Order::Corpus,
            documents: DocumentVectors::Mean,
            shards: 2,
            merge_words: 2_000,
            seed: 1,
        }
    }

    /// word2vec with the size that the study's similarities have: 300 dimensions, window 15, words
    /// from 50 occurrences on, 5 negatives.
    pub fn word2vec() -> Self {
        Self {
            dims: 300,
            window: 15,
            output: Output::Negatives(5),
            min_count: 50,
            max_vocabulary: 0,
            epochs: 10,
            // A word is in so many more pairs than with a window of 2.
            merge_words: 1_000,
            ..Self::tensorflow()
        }
    }

    /// doc2vec as Top2Vec configures it in its mode `learn`: PV-DBOW with words, 300 dimensions,
    /// window 15, words from 50 occurrences on, Huffman codes, sample 1e-5, 40 epochs.
    pub fn top2vec() -> Self {
        Self {
            method: Method::Doc2vec,
            output: Output::Hierarchical,
            sample: 1e-5,
            epochs: 40,
            corpus: Corpus::All,
            order: Order::Random,
            documents: DocumentVectors::Learned,
            merge_words: 100_000,
            ..Self::word2vec()
        }
    }

    /// Checks that the values make sense.
    ///
    /// # Errors
    /// [`Error::Option`] names the first that does not.
    pub fn check(&self) -> Result<(), Error> {
        let within = |name, value: f64, low: f64, high: f64| match value >= low && value <= high {
            true => Ok(()),
            false => {
                Err(Error::Option { name, value: value.to_string(), allowed: format!("{low} to {high}") })
            }
        };
        within("dims", self.dims.into(), 1.0, 65_536.0)?;
        within("window", self.window.into(), 1.0, 10_000.0)?;
        if let Output::Negatives(negatives) = self.output {
            within("negatives", negatives.into(), 1.0, 1000.0)?;
        }
        within("sample", self.sample, 0.0, 1.0)?;
        within("epochs", self.epochs.into(), 1.0, 100_000.0)?;
        within("alpha", self.alpha.into(), 1e-9, 1.0)?;
        within("min-alpha", self.min_alpha.into(), 0.0, self.alpha.into())?;
        within("shards", self.shards.into(), 1.0, 65_536.0)?;
        within("merge-words", self.merge_words as f64, 1.0, 1e15)?;
        if self.documents == DocumentVectors::Learned && self.method != Method::Doc2vec {
            return Err(Error::Option {
                name: "document-vectors",
                value: "learned".into(),
                allowed: "mean, with word2vec; doc2vec learns document vectors".into(),
            });
        }
        if self.documents == DocumentVectors::Learned && self.order == Order::Corpus {
            return Err(Error::Option {
                name: "order",
                value: "corpus".into(),
                allowed: "random, where document vectors are learned".into(),
            });
        }
        Ok(())
    }
}
