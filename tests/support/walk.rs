//! The paths of an unpacked image.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The paths that count, found by a walk over the unpacked image.
pub fn walk(root: &Path) -> BTreeSet<Vec<u8>> {
    fn is_directory(root: &Path, path: &Path) -> bool {
        let mut real = PathBuf::new();
        let mut rest: Vec<OsString> = vec![path.as_os_str().to_owned()];
        let mut hops = 0;
        while let Some(next) = rest.pop() {
            let text = next.as_bytes().to_vec();
            if let Some(slash) = text.iter().position(|b| *b == b'/') {
                if slash == 0 {
                    real = PathBuf::new();
                }
                rest.push(OsString::from_vec(text[slash + 1..].to_vec()));
                rest.push(OsString::from_vec(text[..slash].to_vec()));
                continue;
            }
            match text.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    real.pop();
                    continue;
                }
                _ => real.push(&next),
            }
            let Ok(about) = std::fs::symlink_metadata(root.join(&real)) else { return false };
            if about.is_symlink() {
                hops += 1;
                if hops > 40 {
                    return false;
                }
                let target = std::fs::read_link(root.join(&real)).expect("a link");
                real.pop();
                rest.push(target.into_os_string());
            } else if !about.is_dir() {
                return false;
            }
        }
        true
    }
    let (mut found, mut todo) = (BTreeSet::new(), vec![PathBuf::new()]);
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(root.join(&directory)).expect("a directory") {
            let path = directory.join(entry.expect("an entry").file_name());
            let about = std::fs::symlink_metadata(root.join(&path)).expect("an entry");
            if about.is_dir() {
                todo.push(path);
            } else if !about.is_symlink() || !is_directory(root, &path) {
                found.insert(path.as_os_str().as_bytes().to_vec());
            }
        }
    }
    found
}
