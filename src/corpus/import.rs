//! Source -> corpus, on all ranks and threads.
//!
//! Each rank reads its share of the files into shards, rank 0 gathers and merges them. A rank's
//! share follows from the files' sizes; inside a rank, threads take the next file when they are
//! free. Neither shows in the result: [`super::merge`] renumbers everything in corpus order.

use super::builder::Builder;
use super::merge::{directory_sha256, merge};
use super::shard::Shard;
use super::source::{Listing, Source, read_archive, refuse};
use super::{Corpus, Error, Oddities};
use crate::world::World;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;

/// Says how many bytes of how many are read.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// What rank 0 has of a source: all of it, in the pieces in which it was read.
pub struct Imported {
    shards: Vec<Shard>,
    oddities: Oddities,
    source: String,
    source_sha256: String,
    synthetic_seed: Option<u64>,
}

impl Imported {
    /// Joins the pieces in corpus order.
    pub fn into_corpus(self) -> Corpus {
        let mut corpus = merge(&self.shards, self.oddities);
        corpus.provenance.source = self.source;
        corpus.provenance.source_sha256 = self.source_sha256;
        corpus.provenance.synthetic_seed = self.synthetic_seed;
        corpus
    }
}

/// Reads a directory or archive of corpus files; what was read comes out on rank 0. Collective.
///
/// # Errors
/// [`Error::Source`] if there is nothing to read. Whatever is wrong with single files is counted
/// in [`Corpus::oddities`] instead.
pub fn import(source: &Path, world: &World, progress: Progress) -> Result<Option<Imported>, Error> {
    let mut oddities = Oddities::default();
    let mut synthetic_seed = None;
    let (shards, archive_sha256) = match Source::open(source)? {
        Source::Directory(mut listing) => {
            share_listing(&mut listing, world, &mut oddities)?;
            synthetic_seed = listing.synthetic_seed;
            (read_directory(&listing, world, progress), None)
        }
        Source::Archive { path, packing, bytes } => {
            let sum = |takes: &mut dyn FnMut(super::source::Member)| {
                read_archive(&path, packing, world.is_root(), &mut oddities, &mut synthetic_seed, takes)
            };
            read_stream(world, bytes, progress, sum)?
        }
    };
    let Some(shards) = gather(shards, world) else { return Ok(None) };
    let source_sha256 = archive_sha256.unwrap_or_else(|| directory_sha256(&shards));
    Ok(Some(Imported { shards, oddities, source: name_of(source), source_sha256, synthetic_seed }))
}

fn name_of(source: &Path) -> String {
    let whole = std::fs::canonicalize(source).unwrap_or_else(|_| source.to_owned());
    whole.file_name().unwrap_or(source.as_os_str()).to_string_lossy().into_owned()
}

pub(super) fn threads() -> usize {
    rayon::current_num_threads().max(1)
}

/// Rank 0 looks into the directory, the others hear from it.
fn share_listing(listing: &mut Listing, world: &World, oddities: &mut Oddities) -> Result<(), Error> {
    let mut packed = Vec::new();
    if world.is_root() {
        listing.walk(oddities)?;
        for (path, bytes) in &listing.files {
            packed.extend_from_slice(&bytes.to_le_bytes());
            packed.extend_from_slice(&(path.len() as u64).to_le_bytes());
            packed.extend_from_slice(path);
        }
    }
    if world.size() == 1 {
        return Ok(());
    }
    world.broadcast(&mut packed);
    if !world.is_root() {
        let mut rest = packed.as_slice();
        while let Some((bytes, tail)) = rest.split_first_chunk::<8>() {
            let cut = tail.split_first_chunk::<8>().and_then(|(length, tail)| {
                tail.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
            });
            let Some((path, tail)) = cut else {
                return Err(refuse(
                    &listing.root,
                    "the list of files did not reach this rank whole; start again",
                ));
            };
            listing.files.push((path.to_vec(), u64::from_le_bytes(*bytes)));
            rest = tail;
        }
    }
    Ok(())
}

/// The files of each rank: the largest first, each to the rank with the least so far.
fn shares(sizes: &[u64], ranks: usize) -> Vec<Vec<usize>> {
    let mut largest_first: Vec<usize> = (0..sizes.len()).collect();
    largest_first.sort_by_key(|i| std::cmp::Reverse(sizes[*i]));
    let mut load = Load::new(ranks);
    let mut shares = vec![Vec::new(); ranks];
    for i in largest_first {
        shares[load.place(sizes[i])].push(i);
    }
    shares
}

/// Bytes per rank so far.
struct Load(Vec<u64>);

impl Load {
    fn new(ranks: usize) -> Self {
        Self(vec![0; ranks])
    }

    /// The rank with the least load takes `bytes` more. Each file counts a little for itself, so
    /// that empty ones are shared out, too.
    fn place(&mut self, bytes: u64) -> usize {
        let rank = (0..self.0.len()).min_by_key(|r| self.0[*r]).unwrap_or(0);
        self.0[rank] = self.0[rank].saturating_add(bytes).saturating_add(1024);
        rank
    }
}

fn read_directory(listing: &Listing, world: &World, progress: Progress) -> Vec<Shard> {
    let sizes: Vec<u64> = listing.files.iter().map(|(_, bytes)| *bytes).collect();
    let mine = shares(&sizes, world.size()).swap_remove(world.rank());
    let total = mine.iter().map(|i| sizes[*i]).sum();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let heartbeat = world.heartbeat();
    let work = || {
        let mut builder = Builder::new();
        let mut content = Vec::new();
        while let Some(&i) = mine.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (path, bytes) = &listing.files[i];
            content.clear();
            match File::open(listing.path(path)).and_then(|mut f| f.read_to_end(&mut content)) {
                Ok(_) => builder.add(path, i as u64, &content, blake3::hash(&content).into()),
                Err(e) => builder.add_unreadable(path, i as u64, &e.to_string()),
            }
            progress(done.fetch_add(*bytes, Ordering::Relaxed) + bytes, total);
            heartbeat();
        }
        builder.finish()
    };
    on_threads(threads().min(mine.len()), work)
}

/// Runs `work` on that many threads, the caller's among them.
pub(super) fn on_threads<T: Send>(threads: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(&work)).collect();
        let mut results = vec![work()];
        for other in others {
            results.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    })
}

/// A file on its way to a parser thread.
struct Job {
    path: Vec<u8>,
    ordinal: u64,
    content: Vec<u8>,
}

/// Reads a stream of members: one thread unpacks, the others parse what is this rank's.
fn read_stream(
    world: &World,
    total: u64,
    progress: Progress,
    stream: impl FnOnce(&mut dyn FnMut(super::source::Member)) -> Result<Option<String>, Error>,
) -> Result<(Vec<Shard>, Option<String>), Error> {
    let mut load = Load::new(world.size());
    let mut is_mine = |content: &[u8]| load.place(content.len() as u64) == world.rank();
    let threads = threads();
    if threads == 1 {
        let mut builder = Builder::new();
        let sha256 = stream(&mut |member| {
            if is_mine(member.content) {
                builder.add(member.path, member.ordinal, member.content, [0; 32]);
            }
            progress(member.archive_bytes, total);
            world.progress();
        })?;
        return Ok((vec![builder.finish()], sha256));
    }
    // Few files wait at a time: that bounds the memory, and used buffers come back.
    let (jobs, waiting) = mpsc::sync_channel::<Job>(2 * threads);
    let (used, free) = mpsc::channel::<Vec<u8>>();
    let waiting = Mutex::new(waiting);
    std::thread::scope(|scope| {
        let parsers: Vec<_> = (0..threads)
            .map(|_| {
                let (waiting, used) = (&waiting, used.clone());
                scope.spawn(move || {
                    let mut builder = Builder::new();
                    loop {
                        let job = waiting.lock().map(|w| w.recv());
                        let Ok(Ok(Job { path, ordinal, content })) = job else { break };
                        builder.add(&path, ordinal, &content, [0; 32]);
                        // The reader may have ended already.
                        let _ = used.send(content);
                    }
                    builder.finish()
                })
            })
            .collect();
        let sha256 = stream(&mut |member| {
            if is_mine(member.content) {
                let spare = free.try_recv().unwrap_or_default();
                let content = std::mem::replace(member.content, spare);
                let job = Job { path: member.path.to_vec(), ordinal: member.ordinal, content };
                // It fails only if all parsers panicked, which joining them tells.
                let _ = jobs.send(job);
            }
            progress(member.archive_bytes, total);
            world.progress();
        });
        drop(jobs);
        let shards = parsers
            .into_iter()
            .map(|p| p.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        Ok((shards, sha256?))
    })
}

/// Brings all shards to rank 0.
fn gather(mut shards: Vec<Shard>, world: &World) -> Option<Vec<Shard>> {
    if world.size() == 1 {
        return Some(shards);
    }
    let mut packed = Vec::new();
    if !world.is_root() {
        for shard in &shards {
            shard.pack(&mut packed);
        }
        shards.clear();
    }
    for bytes in world.gather(&packed)? {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let shard = Shard::unpack(&mut rest);
            shards.push(shard.expect("a shard arrives as it was packed"));
        }
    }
    Some(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_complete() {
        let sizes: Vec<u64> = (0..100).map(|i| i * i * 37 % 1000).collect();
        let shares = shares(&sizes, 3);
        let mut all: Vec<usize> = shares.concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        let loads: Vec<u64> = shares.iter().map(|s| s.iter().map(|i| sizes[*i]).sum()).collect();
        assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() < 2000, "{loads:?}");
    }
}
