//! `stratigraph completions` and `stratigraph man`: made from the same definitions as `--help`.

use super::{Cli, Code};
use anyhow::Context as _;
use clap::CommandFactory;
use std::path::{Path, PathBuf};

/// Print the completion script for a shell
#[derive(Debug, Clone, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Write the manual pages, one for each command
#[derive(Debug, Clone, clap::Args)]
pub struct ManArgs {
    /// Directory for the pages (stratigraph.1, stratigraph-import.1, ...)
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Prints a completion script.
pub fn completions(args: &CompletionsArgs) -> Code {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "stratigraph", &mut script);
    super::show::print(String::from_utf8_lossy(&script).trim_end());
    Code::Done
}

/// Writes the manual pages.
pub fn man(args: &ManArgs) -> anyhow::Result<Code> {
    std::fs::create_dir_all(&args.directory).with_context(|| args.directory.display().to_string())?;
    let command = Cli::command();
    write_page(&command, &args.directory, "stratigraph")?;
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write_page(sub, &args.directory, &format!("stratigraph-{}", sub.get_name()))?;
    }
    super::show::print(format_args!("manual pages: {}", args.directory.display()));
    Ok(Code::Done)
}

fn write_page(command: &clap::Command, directory: &Path, name: &str) -> anyhow::Result<()> {
    let path = directory.join(format!("{name}.1"));
    let named = command.clone().name(name.to_owned());
    let mut page = Vec::new();
    clap_mangen::Man::new(named).render(&mut page)?;
    std::fs::write(&path, page).with_context(|| path.display().to_string())
}
