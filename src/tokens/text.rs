//! The text corpora: one document a line, tokens joined by spaces, as the study writes them.
//!
//! Text is ten times larger than the documents, so it is written only on request. The sizes of all
//! lines follow from the tokens, so threads write their parts of the file at once, each at its
//! place.

use super::{Documents, Reading, Scheme};
use crate::strings::StringTable;
use rayon::prelude::*;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Lines or sources of one write.
const CHUNK: usize = 64;

/// The text files that documents can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corpora {
    /// Every layer document, in corpus order.
    Layers,
    /// The distinct layer documents by first occurrence.
    DistinctLayers,
    /// Every image document, in corpus order.
    Images,
}

impl Corpora {
    /// Those that a scheme has, with the names of the study's files where it has such.
    pub fn of(scheme: Scheme) -> &'static [(Self, &'static str)] {
        match scheme {
            Scheme::Cumulative => &[
                (Self::Layers, "dockerfile-layer-corpus.txt"),
                (Self::DistinctLayers, "dockerfile-unique-layer-corpus.txt"),
                (Self::Images, "dockerfile-image-corpus.txt"),
            ],
            Scheme::PerLayer => &[
                (Self::Layers, "per-layer-corpus.txt"),
                (Self::DistinctLayers, "per-layer-unique-corpus.txt"),
            ],
            Scheme::Dockerfiles => &[(Self::Images, "scientific-dockerfile-image-corpus.txt")],
        }
    }
}

impl Documents {
    /// Writes one of the text files.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write_text(&self, corpora: Corpora, file: &File) -> io::Result<()> {
        let widths = self.widths();
        let line = |document: usize, out: &mut Vec<u8>| {
            let mut tokens = Vec::new();
            self.tokens_of(document, &mut tokens);
            push_line(&self.vocabulary, &tokens, out);
        };
        match corpora {
            Corpora::Layers => {
                let size =
                    |s: usize| self.layers_of(s).iter().map(|d| size_of_line(widths[*d as usize])).sum();
                write(file, self.source_count(), size, |source, out| {
                    let layers = self.layers_of(source);
                    let mut whole = Vec::new();
                    if let (Some(last), Scheme::Cumulative) = (layers.last(), self.scheme) {
                        line(*last as usize, &mut whole);
                    }
                    for &document in layers {
                        // Layers are prefixes of the last one.
                        let width = widths[document as usize] as usize;
                        match whole.get(..width.saturating_sub(1)) {
                            Some(prefix) if self.scheme == Scheme::Cumulative => {
                                out.extend_from_slice(prefix);
                                out.push(b'\n');
                            }
                            _ => line(document as usize, out),
                        }
                    }
                })
            }
            Corpora::DistinctLayers => {
                let distinct: Vec<usize> = self.of(Reading::Layers).map(|(i, _)| i).collect();
                let size = |k: usize| size_of_line(widths[distinct[k]]);
                write(file, distinct.len(), size, |k, out| line(distinct[k], out))
            }
            Corpora::Images => {
                let images: Vec<usize> = (0..self.source_count()).filter_map(|s| self.image_of(s)).collect();
                let size = |k: usize| size_of_line(widths[images[k]]);
                write(file, images.len(), size, |k, out| line(images[k], out))
            }
        }
    }

    /// For each document, the bytes of its tokens with one for a separator after each.
    fn widths(&self) -> Vec<u64> {
        let mut widths: Vec<u64> = Vec::with_capacity(self.len());
        for i in 0..self.len() {
            let own: u64 = self.own_tokens(i).iter().map(|t| self.vocabulary.get(*t).len() as u64 + 1).sum();
            widths.push(own + self.parent(i).map_or(0, |p| widths[p]));
        }
        widths
    }
}

/// Texts that are lines of a corpus without being its documents.
#[derive(Debug, Clone, PartialEq)]
pub struct Texts {
    /// The distinct tokens.
    pub vocabulary: StringTable,
    /// CSR offsets into `tokens`, one more than texts.
    pub offsets: Vec<u64>,
    /// Ids in `vocabulary`.
    pub tokens: Vec<u32>,
    /// The text of each line.
    pub lines: Vec<u32>,
}

impl Texts {
    /// Writes all lines.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write_text(&self, file: &File) -> io::Result<()> {
        let tokens = |k: usize| &self.tokens[super::range(&self.offsets, self.lines[k] as usize)];
        let width = |k: usize| tokens(k).iter().map(|t| self.vocabulary.get(*t).len() as u64 + 1).sum();
        let line = |k: usize, out: &mut Vec<u8>| push_line(&self.vocabulary, tokens(k), out);
        write(file, self.lines.len(), |k| size_of_line(width(k)), line)
    }
}

fn push_line(vocabulary: &StringTable, tokens: &[u32], out: &mut Vec<u8>) {
    for (i, token) in tokens.iter().enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(vocabulary.get(*token).as_bytes());
    }
    out.push(b'\n');
}

/// Bytes of a line whose tokens have this width.
fn size_of_line(width: u64) -> u64 {
    width.max(1)
}

/// Writes `n` parts one after the other: all at once, each where it belongs.
fn write(
    file: &File,
    n: usize,
    size: impl Fn(usize) -> u64 + Sync,
    part: impl Fn(usize, &mut Vec<u8>) + Sync,
) -> io::Result<()> {
    let chunk = |k: usize| k * CHUNK..n.min((k + 1) * CHUNK);
    let sizes: Vec<u64> = (0..n.div_ceil(CHUNK)).into_par_iter().map(|k| chunk(k).map(&size).sum()).collect();
    let starts: Vec<u64> = sizes
        .iter()
        .scan(0, |at, size| {
            *at += size;
            Some(*at - size)
        })
        .collect();
    starts.into_par_iter().enumerate().try_for_each_init(Vec::new, |out, (k, start)| {
        out.clear();
        chunk(k).for_each(|i| part(i, out));
        assert_eq!(out.len() as u64, sizes[k], "a part is as large as its tokens say");
        file.write_all_at(out, start)
    })
}
