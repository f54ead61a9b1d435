//! `stratigraph ranks`.

use super::{Code, Context};

/// (arguments follow)
#[derive(Debug, Clone, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args, _context: &Context) -> anyhow::Result<Code> {
    anyhow::bail!("not there yet")
}
