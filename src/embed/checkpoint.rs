//! The state of training between two epochs, on disk.
//!
//! Kind `embed-checkpoint`. Attributes: `fingerprint` (text; of the documents and all options, of a
//! lock-free run followed by its number of ranks) and `round` (integer; rounds done). Datasets:
//! `weights` (f32, rows of words, then of outputs, each filled up to a multiple of 16) and
//! `documents` (f32, rows of documents in the order in which they were dealt to shards; empty if they
//! are not learned).

use super::Error;
use super::lanes::Chunk;
use super::train::{State, Trainer};
use crate::h5::{Reader, Writer};
use crate::world::World;
use std::path::Path;

/// Kind of a checkpoint file.
pub const KIND: &str = "embed-checkpoint";
const FORMAT_VERSION: u64 = 1;

/// Collects the rows of documents on rank 0, in shard order. Collective; empty elsewhere.
pub fn gather(world: &World, documents: &[Chunk]) -> Vec<Chunk> {
    let Some(parts) = world.gather(bytemuck::cast_slice(documents)) else { return Vec::new() };
    let bytes: usize = parts.iter().map(Vec::len).sum();
    let mut all = vec![Chunk::default(); bytes / size_of::<Chunk>()];
    let mut rest: &mut [u8] = bytemuck::cast_slice_mut(&mut all);
    for part in parts {
        let (here, after) = rest.split_at_mut(part.len());
        here.copy_from_slice(&part);
        rest = after;
    }
    all
}

/// Writes the state; rank 0 does it for all. Collective.
///
/// # Errors
/// [`Error::File`].
pub fn save(world: &World, path: &Path, fingerprint: &str, state: &State) -> Result<(), Error> {
    let documents = gather(world, &state.documents);
    if world.is_root() {
        let w = Writer::create(path, KIND, FORMAT_VERSION)?;
        w.attribute("fingerprint", fingerprint)?;
        w.number("round", state.round)?;
        w.array::<f32>("weights", bytemuck::cast_slice(&state.weights))?;
        w.array::<f32>("documents", bytemuck::cast_slice(&documents))?;
        w.finish()?;
    }
    Ok(())
}

/// Reads the state of this very run, if there is one. Rank 0 decides; collective. `fresh` is the
/// state at the beginning, which says how much there should be.
///
/// # Errors
/// [`Error::Refused`] for a checkpoint of another run, [`Error::File`] for a damaged one.
pub fn load(
    world: &World,
    path: &Path,
    fingerprint: &str,
    trainer: &Trainer<'_>,
    fresh: State,
) -> Result<State, Error> {
    let mut there = [u64::from(world.is_root() && path.exists())];
    world.max_u64(&mut there);
    if there[0] == 0 {
        return Ok(fresh);
    }
    let r = Reader::open(path, KIND, FORMAT_VERSION)?;
    let found = r.attribute("fingerprint")?;
    if found != fingerprint {
        if found.split(' ').next() == fingerprint.split(' ').next() {
            let (path, ranks) = (path.display(), found.split_once(" on ").map_or("", |(_, ranks)| ranks));
            return Err(Error::Refused(format!(
                "{path}: is of a lock-free run on {ranks}, and goes on only there; start it so, or give --overwrite"
            )));
        }
        return Err(Error::Refused(format!(
            "{}: is the checkpoint of another run (other documents or other options); give the same ones, \
             another output, or --overwrite",
            path.display()
        )));
    }
    let damaged =
        |what: &str| Error::Refused(format!("{}: {what}; remove the file and start again", path.display()));
    let round = r.number("round")?;
    if round > trainer.rounds() {
        return Err(damaged("holds more rounds than there are"));
    }
    let weights = chunks(&r.map::<f32>("weights")?).ok_or_else(|| damaged("`weights` is cut short"))?;
    let all = r.map::<f32>("documents")?;
    let rows = if trainer.learns_documents() { trainer.plan.dealt.len() } else { 0 };
    if weights.len() != fresh.weights.len() || all.len() != rows * trainer.width() * super::lanes::WIDTH {
        return Err(damaged("holds another number of rows than this run has"));
    }
    let row = trainer.width() * super::lanes::WIDTH;
    let mine = trainer.document_rows(world);
    let documents = chunks(&all[mine.start * row..mine.end * row]).unwrap_or_default();
    Ok(State { round, weights, documents })
}

fn chunks(elements: &[f32]) -> Option<Vec<Chunk>> {
    let (chunks, rest) = elements.as_chunks::<{ super::lanes::WIDTH }>();
    rest.is_empty().then(|| chunks.iter().map(|c| Chunk(*c)).collect())
}
