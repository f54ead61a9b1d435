//! The manual: `--help`, manual pages and completions know every command.

mod support;

use support::{run, stratigraph, succeed};

/// The commands that `stratigraph --help` lists.
fn commands() -> Vec<String> {
    let help = succeed(stratigraph(1).arg("-h"));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.map_while(|line| line.strip_prefix("  ")?.split_whitespace().next());
    let names: Vec<String> = names.filter(|name| *name != "help").map(str::to_owned).collect();
    for known in ["import", "stats", "export", "jaccard", "reduce", "inspect", "synth", "run", "man"] {
        assert!(names.iter().any(|name| name == known), "{known}: {help}");
    }
    names
}

#[test]
fn every_command_has_help_and_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    succeed(stratigraph(1).arg("man").arg(&pages));
    let commands = commands();
    for name in &commands {
        let help = succeed(stratigraph(1).arg(name).arg("--help"));
        assert!(help.contains(&format!("Usage: stratigraph {name}")), "{help}");
        let page = std::fs::read_to_string(pages.join(format!("stratigraph-{name}.1"))).unwrap();
        for section in [".TH", ".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"] {
            assert!(page.contains(section), "{name}: no {section}");
        }
    }
    assert!(pages.join("stratigraph.1").exists());
    assert_eq!(std::fs::read_dir(&pages).unwrap().count(), commands.len() + 1);
    let long = succeed(stratigraph(1).arg("--help"));
    for code in ["2 ", "3 ", "4 ", "5 ", "6 ", "70", "74", "75"] {
        assert!(long.lines().any(|line| line.trim_start().starts_with(code)), "exit code {code}: {long}");
    }
}

#[test]
fn every_command_is_completed() {
    let commands = commands();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = succeed(stratigraph(1).args(["completions", shell]));
        for name in &commands {
            assert!(script.contains(name.as_str()), "{shell}: {name}");
        }
    }
    let (code, _, err) = run(stratigraph(1).arg("no-such-command"));
    assert_eq!(code, 2, "{err}");
}
