//! Putting documents together, source by source, in corpus order.

use super::{Documents, Origin, Scheme, range};
use crate::strings::{NONE, StringTable};
use hashbrown::{HashMap, HashTable};
use rustc_hash::FxBuildHasher;

/// Builds [`Documents`].
///
/// Distinct sequences are found by a polynomial hash that extends from prefix to document; equal
/// hashes are compared token by token, so the answer does not rest on the hash.
#[derive(Debug)]
pub struct Builder {
    documents: Documents,
    hashes: Vec<u64>,
    by_hash: HashTable<u32>,
    /// (document before, number of the text) -> document: the same step after the same beginning.
    known: HashMap<(u32, u32), u32, FxBuildHasher>,
    /// Document before the next entry of the source at hand.
    last: u32,
    /// Sources whose image document is empty: it may yet turn up as a layer document.
    empty_images: Vec<u32>,
}

/// 2^61 - 1, a prime.
const MODULUS: u64 = (1 << 61) - 1;
/// Any large number below it.
const BASE: u64 = 0x0a3c_59ac_2e1f_7d35;

/// The hash of a sequence and one more token.
fn append(hash: u64, token: u32) -> u64 {
    let product = u128::from(hash) * u128::from(BASE) + u128::from(token) + 1;
    let folded = (product as u64 & MODULUS) + (product >> 61) as u64;
    if folded >= MODULUS { folded - MODULUS } else { folded }
}

impl Builder {
    /// Begins with no documents; the vocabulary is given with [`Builder::finish`].
    pub fn new(scheme: Scheme) -> Self {
        Self {
            documents: Documents {
                scheme,
                origin: Origin::default(),
                vocabulary: StringTable::default(),
                parent: Vec::new(),
                offsets: vec![0],
                tokens: Vec::new(),
                lengths: Vec::new(),
                layers: Vec::new(),
                images: Vec::new(),
                first_source: Vec::new(),
                first_entry: Vec::new(),
                sources: StringTable::default(),
                source_layers: vec![0],
                layer_documents: Vec::new(),
                source_image: Vec::new(),
            },
            hashes: Vec::new(),
            by_hash: HashTable::new(),
            known: HashMap::default(),
            last: NONE,
            empty_images: Vec::new(),
        }
    }

    /// Begins the next source. Its layers follow, then [`Builder::end`].
    pub fn begin(&mut self, name: &str) {
        self.documents.sources.push(name);
        self.last = NONE;
    }

    /// Adds a layer document to the source at hand: the history entry number `entry` (from 0) of
    /// its config, with its own tokens. `text` numbers the texts: equal numbers mean equal tokens.
    pub fn layer(&mut self, entry: u32, text: u32, tokens: &[u32]) {
        let before = if self.documents.scheme == Scheme::Cumulative { self.last } else { NONE };
        let source = self.documents.source_image.len() as u32;
        let document = match self.known.get(&(before, text)) {
            Some(document) => *document,
            None => {
                let document = self.document(before, tokens, source, entry);
                self.known.insert((before, text), document);
                document
            }
        };
        self.documents.layers[document as usize] += 1;
        self.documents.layer_documents.push(document);
        self.last = document;
    }

    /// Ends the source at hand. With [`Scheme::Cumulative`] its last layer document is its image
    /// document too, an empty one if there was no layer.
    pub fn end(&mut self) {
        let source = self.documents.source_image.len() as u32;
        let image = match self.documents.scheme {
            Scheme::Cumulative if self.last == NONE => {
                self.empty_images.push(source);
                NONE
            }
            Scheme::Cumulative => {
                self.documents.images[self.last as usize] += 1;
                self.last
            }
            Scheme::PerLayer | Scheme::Dockerfiles => NONE,
        };
        self.documents.source_image.push(image);
        self.documents.source_layers.push(self.documents.layer_documents.len() as u64);
    }

    /// Adds a source that is one image document ([`Scheme::Dockerfiles`]).
    pub fn flat(&mut self, name: &str, tokens: &[u32]) {
        let source = self.documents.source_image.len() as u32;
        let document = self.document(NONE, tokens, source, NONE);
        self.documents.sources.push(name);
        self.documents.images[document as usize] += 1;
        self.documents.source_image.push(document);
        self.documents.source_layers.push(self.documents.layer_documents.len() as u64);
    }

    /// The finished documents. `vocabulary` holds the strings of all token ids that were given, by
    /// first occurrence.
    pub fn finish(mut self, vocabulary: StringTable, origin: Origin) -> Documents {
        if let Some(&first) = self.empty_images.first() {
            let empty = self.document(NONE, &[], first, NONE);
            self.documents.images[empty as usize] += self.empty_images.len() as u64;
            for source in &self.empty_images {
                self.documents.source_image[*source as usize] = empty;
            }
        }
        self.documents.vocabulary = vocabulary;
        self.documents.origin = origin;
        self.documents
    }

    /// The document of the tokens of `before` and `tokens`, new if there is none yet.
    fn document(&mut self, before: u32, tokens: &[u32], source: u32, entry: u32) -> u32 {
        // The empty document is nobody's parent.
        let before =
            if before != NONE && self.documents.lengths[before as usize] == 0 { NONE } else { before };
        if tokens.is_empty() && before != NONE {
            return before;
        }
        let (hash, length) = match before {
            NONE => (0, 0),
            _ => (self.hashes[before as usize], self.documents.lengths[before as usize]),
        };
        let hash = tokens.iter().fold(hash, |hash, token| append(hash, *token));
        let length = length + tokens.len() as u64;
        let d = &mut self.documents;
        let same = |&i: &u32| {
            self.hashes[i as usize] == hash
                && d.lengths[i as usize] == length
                && is_same_sequence(d, i, before, tokens)
        };
        if let Some(known) = self.by_hash.find(hash, same) {
            return *known;
        }
        let new = u32::try_from(d.parent.len()).ok().filter(|i| *i != NONE);
        let new = new.expect("fewer than 2^32 - 1 documents");
        d.parent.push(before);
        d.tokens.extend_from_slice(tokens);
        d.offsets.push(d.tokens.len() as u64);
        d.lengths.push(length);
        d.layers.push(0);
        d.images.push(0);
        d.first_source.push(source);
        d.first_entry.push(entry);
        self.hashes.push(hash);
        self.by_hash.insert_unique(hash, new, |i| self.hashes[*i as usize]);
        new
    }
}

/// True if document `a` has the same tokens as document `b` followed by `tail`; their lengths are
/// equal. Compares from the end, so that it ends where the two have a common ancestor.
fn is_same_sequence(d: &Documents, a: u32, b: u32, tail: &[u32]) -> bool {
    let own = |i: u32| &d.tokens[range(&d.offsets, i as usize)];
    let (mut left, mut above_left) = (own(a), d.parent[a as usize]);
    let (mut right, mut above_right) = (tail, b);
    loop {
        if above_left == above_right && left.len() == right.len() {
            return left == right;
        }
        let n = left.len().min(right.len());
        let (l, r) = (left.split_at(left.len() - n), right.split_at(right.len() - n));
        if l.1 != r.1 {
            return false;
        }
        (left, right) = (l.0, r.0);
        for (rest, above) in [(&mut left, &mut above_left), (&mut right, &mut above_right)] {
            if rest.is_empty() && *above != NONE {
                *rest = own(*above);
                *above = d.parent[*above as usize];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reading;
    use super::*;
    use proptest::prelude::*;

    /// Histories as a list of texts, each a list of tokens.
    type Histories = Vec<Vec<Vec<u32>>>;

    fn histories() -> impl Strategy<Value = Histories> {
        let text = prop::collection::vec(0u32..3, 0..4);
        prop::collection::vec(prop::collection::vec(text, 0..6), 0..20)
    }

    fn vocabulary() -> StringTable {
        ["apt", "get", "install"].into_iter().collect()
    }

    /// Gives equal texts equal numbers.
    fn build(scheme: Scheme, histories: &Histories) -> Documents {
        let mut texts: Vec<&Vec<u32>> = Vec::new();
        let mut builder = Builder::new(scheme);
        for (s, history) in histories.iter().enumerate() {
            builder.begin(&format!("r:{s}"));
            for (entry, tokens) in history.iter().enumerate() {
                let number = texts.iter().position(|t| *t == tokens).unwrap_or(texts.len());
                if number == texts.len() {
                    texts.push(tokens);
                }
                builder.layer(entry as u32, number as u32, tokens);
            }
            builder.end();
        }
        builder.finish(vocabulary(), Origin::default())
    }

    /// Lists of distinct items in order of first occurrence, with counts.
    fn distinct(items: &[Vec<u32>]) -> Vec<(Vec<u32>, u64)> {
        let mut out: Vec<(Vec<u32>, u64)> = Vec::new();
        for item in items {
            match out.iter_mut().find(|(known, _)| known == item) {
                Some((_, n)) => *n += 1,
                None => out.push((item.clone(), 1)),
            }
        }
        out
    }

    fn unfold(documents: &Documents, reading: Reading) -> Vec<(Vec<u32>, u64)> {
        let mut tokens = Vec::new();
        let each = documents.of(reading).map(|(i, n)| {
            documents.tokens_of(i, &mut tokens);
            (tokens.clone(), n)
        });
        each.collect()
    }

    proptest! {
        #[test]
        fn documents_are_the_distinct_sequences(histories in histories(), per_layer in any::<bool>()) {
            let scheme = if per_layer { Scheme::PerLayer } else { Scheme::Cumulative };
            let documents = build(scheme, &histories);
            prop_assert_eq!(documents.check(), Ok(()));
            let (mut layers, mut images) = (Vec::new(), Vec::new());
            for (s, history) in histories.iter().enumerate() {
                let mut all = Vec::new();
                for (k, text) in history.iter().enumerate() {
                    all.extend_from_slice(text);
                    layers.push(if per_layer { text.clone() } else { all.clone() });
                    let mut tokens = Vec::new();
                    documents.tokens_of(documents.layers_of(s)[k] as usize, &mut tokens);
                    prop_assert_eq!(&tokens, layers.last().unwrap());
                }
                if !per_layer {
                    images.push(all);
                }
            }
            prop_assert_eq!(unfold(&documents, Reading::Layers), distinct(&layers));
            let mut found = unfold(&documents, Reading::Images);
            let mut wanted = distinct(&images);
            found.sort();
            wanted.sort();
            prop_assert_eq!(found, wanted);
            let mut counts = vec![0u64; 3];
            layers.iter().flatten().for_each(|t| counts[*t as usize] += 1);
            prop_assert_eq!(documents.token_counts(Reading::Layers), counts);
        }

        #[test]
        fn flat_documents_collapse(texts in prop::collection::vec(prop::collection::vec(0u32..3, 0..4), 0..30)) {
            let mut builder = Builder::new(Scheme::Dockerfiles);
            for (i, text) in texts.iter().enumerate() {
                builder.flat(&format!("d/{i}"), text);
            }
            let documents = builder.finish(vocabulary(), Origin::default());
            prop_assert_eq!(documents.check(), Ok(()));
            prop_assert_eq!(unfold(&documents, Reading::Images), distinct(&texts));
            prop_assert_eq!(documents.occurrences(Reading::Layers), 0);
        }
    }

    #[test]
    fn an_empty_history_comes_last_unless_it_is_a_layer() {
        let documents = build(Scheme::Cumulative, &vec![vec![], vec![vec![0]]]);
        assert_eq!(documents.image_of(0), Some(1));
        assert_eq!(documents.first_occurrence(1), (0, None));
        let documents = build(Scheme::Cumulative, &vec![vec![], vec![vec![], vec![0], vec![]]]);
        assert_eq!(documents.image_of(0), Some(0));
        assert_eq!(documents.first_occurrence(0), (1, Some(0)));
        assert_eq!(documents.layers_of(1), [0, 1, 1]);
        assert_eq!(documents.parent(1), None);
    }

    #[test]
    fn cuts_do_not_make_documents() {
        let documents =
            build(Scheme::Cumulative, &vec![vec![vec![0, 1], vec![2]], vec![vec![0], vec![1, 2]]]);
        assert_eq!(documents.layers_of(0), [0, 1]);
        assert_eq!(documents.layers_of(1), [2, 1]);
        assert_eq!(documents.first_occurrence(1), (0, Some(1)));
    }
}
