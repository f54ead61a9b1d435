//! Images that real tools made.

use super::{run, tools};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a script says that what it makes cannot be had here: no network, or not the right to unpack.
const NOT_HERE: i32 = 77;

/// True if a script made what a test needs; what can be made here and was not is a failure.
pub fn made(code: i32, what: &str, told: &str) -> bool {
    assert!(code == 0 || code == NOT_HERE, "{what} could not be made: exit code {code}\n{told}");
    if code == NOT_HERE {
        println!("skipped: {what} cannot be made here\n{told}");
    }
    code == 0
}

/// The images of `support/images.sh`, made by whichever test comes first, once for all runs.
pub fn images() -> Option<PathBuf> {
    if !tools(&["mmdebstrap", "umoci", "buildah", "skopeo"]) {
        return None;
    }
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = home.join("target/test-images");
    let mut command = Command::new("timeout");
    let (code, out, err) = run(command.arg("600").arg(home.join("tests/support/images.sh")).arg(&directory));
    made(code, "the images", &(out + &err)).then_some(directory)
}
