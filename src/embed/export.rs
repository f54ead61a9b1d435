//! Word vectors in the formats of other programs.

use super::Vectors;
use crate::strings::StringTable;
use std::io::{self, Write};

/// The text format of word2vec: a line `words dims`, then a line for each word, its name and its
/// numbers, separated by spaces. gensim reads it with `KeyedVectors.load_word2vec_format`.
///
/// # Errors
/// If writing fails.
pub fn word2vec_text(vectors: &Vectors, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{} {}", vectors.words.names.len(), vectors.dims)?;
    for (row, name) in vectors.words.names.iter().enumerate() {
        write!(out, "{name}")?;
        for x in vectors.word(row) {
            write!(out, " {x}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The binary format of word2vec: the same first line, then for each word its name, a space and the
/// numbers as little-endian f32. gensim reads it with `binary=True`.
///
/// # Errors
/// If writing fails.
pub fn word2vec_binary(vectors: &Vectors, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{} {}", vectors.words.names.len(), vectors.dims)?;
    for (row, name) in vectors.words.names.iter().enumerate() {
        write!(out, "{name} ")?;
        for x in vectors.word(row) {
            out.write_all(&x.to_le_bytes())?;
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Vectors for the TensorFlow embedding projector: one line of tab-separated numbers for each word.
///
/// # Errors
/// If writing fails.
pub fn projector_vectors(vectors: &Vectors, out: &mut impl Write) -> io::Result<()> {
    for row in 0..vectors.words.names.len() {
        for (d, x) in vectors.word(row).iter().enumerate() {
            write!(out, "{}{x}", if d == 0 { "" } else { "\t" })?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Metadata for the projector: a line for each word with its name and count, under a head line.
///
/// # Errors
/// If writing fails.
pub fn projector_metadata(names: &StringTable, counts: &[u64], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "word\tcount")?;
    names.iter().zip(counts).try_for_each(|(name, count)| writeln!(out, "{name}\t{count}"))
}
