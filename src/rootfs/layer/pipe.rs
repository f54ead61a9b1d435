//! Bytes handed from one thread to another, in bounded memory.

use std::io::{Error, Read, Result};
use std::sync::mpsc;

const CHUNK: usize = 1 << 18;
/// Chunks under way at a time.
const DEPTH: usize = 3;

/// The two ends of a pipe.
pub(super) fn pipe() -> (Inlet, Outlet) {
    let (full, filled) = mpsc::sync_channel(DEPTH);
    let (empty, emptied) = mpsc::channel();
    let inlet = Inlet { full, emptied, made: 0 };
    (inlet, Outlet { filled, empty, chunk: Vec::new(), at: 0 })
}

/// Takes bytes.
pub(super) struct Inlet {
    full: mpsc::SyncSender<Result<Vec<u8>>>,
    emptied: mpsc::Receiver<Vec<u8>>,
    made: usize,
}

impl Inlet {
    /// Reads to the end, or until nobody wants more. An error of the reader comes out at the other
    /// end.
    pub(super) fn take_all(mut self, mut reader: impl Read) {
        loop {
            let reused = if self.made > DEPTH { self.emptied.recv().ok() } else { None };
            let mut chunk = reused.unwrap_or_default();
            self.made += 1;
            let filled = fill(&mut reader, &mut chunk);
            let (ended, failed) = (chunk.is_empty(), filled.err());
            if !ended && self.full.send(Ok(chunk)).is_err() {
                return;
            }
            if let Some(error) = failed {
                let _ = self.full.send(Err(error));
                return;
            }
            if ended {
                return;
            }
        }
    }
}

/// Fills a chunk as far as there are bytes. What came before an error stays in it.
fn fill(reader: &mut impl Read, chunk: &mut Vec<u8>) -> Result<()> {
    chunk.resize(CHUNK, 0);
    let mut length = 0;
    let outcome = loop {
        match reader.read(&mut chunk[length..]) {
            Ok(0) => break Ok(()),
            Ok(n) => length += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => (),
            Err(e) => break Err(e),
        }
        if length == CHUNK {
            break Ok(());
        }
    };
    chunk.truncate(length);
    outcome
}

/// A reader that fails at once.
pub(super) struct Failed(pub(super) Option<Error>);

impl Read for Failed {
    fn read(&mut self, _: &mut [u8]) -> Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Gives bytes.
pub(super) struct Outlet {
    filled: mpsc::Receiver<Result<Vec<u8>>>,
    empty: mpsc::Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for Outlet {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        if self.at == self.chunk.len() {
            match self.filled.recv() {
                Ok(Ok(chunk)) => {
                    let used = std::mem::replace(&mut self.chunk, chunk);
                    self.at = 0;
                    if used.capacity() > 0 {
                        // Nobody waits for it at the end.
                        let _ = self.empty.send(used);
                    }
                }
                Ok(Err(error)) => return Err(Error::new(error.kind(), error)),
                Err(_) => return Ok(0),
            }
        }
        let length = into.len().min(self.chunk.len() - self.at);
        into[..length].copy_from_slice(&self.chunk[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_come_through_and_then_the_error() {
        struct Breaks(usize);
        impl Read for Breaks {
            fn read(&mut self, into: &mut [u8]) -> Result<usize> {
                if self.0 == 0 {
                    return Err(Error::other("the line went dead"));
                }
                let read = into.len().min(self.0).min(100_000);
                into[..read].fill(self.0 as u8);
                self.0 -= read;
                Ok(read)
            }
        }
        for length in [0, 5, CHUNK, 20 * CHUNK + 3] {
            let (inlet, mut outlet) = pipe();
            let giving = std::thread::spawn(move || inlet.take_all(Breaks(length)));
            let mut all = Vec::new();
            let error = outlet.read_to_end(&mut all).unwrap_err();
            assert_eq!((all.len(), error.to_string().as_str()), (length, "the line went dead"));
            giving.join().unwrap();
            let (inlet, mut outlet) = pipe();
            let giving = std::thread::spawn(move || inlet.take_all(vec![3; length].as_slice()));
            assert_eq!(std::io::copy(&mut outlet, &mut std::io::sink()).unwrap(), length as u64);
            giving.join().unwrap();
        }
    }

    #[test]
    fn who_wants_no_more_ends_the_giver() {
        let (inlet, mut outlet) = pipe();
        let giving = std::thread::spawn(move || inlet.take_all(std::io::repeat(1)));
        outlet.read_exact(&mut [0; 10]).unwrap();
        drop(outlet);
        giving.join().unwrap();
    }
}
