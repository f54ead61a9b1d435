//! Campaigns over images: `[rootfs]` reads layers, `[classify]` tells the bases.
//!
//! The keys of both tables are the long options of these commands, so that neither is defined twice.

use crate::cli::{Code, Context, classify, rootfs, show};
use crate::corpus::Error;
use clap::{CommandFactory, Parser};
use std::path::{Path, PathBuf};

/// A campaign with a `[rootfs]` table.
#[derive(Debug)]
pub struct Campaign {
    name: String,
    output: PathBuf,
    rootfs: Vec<String>,
    classify: Option<Vec<String>>,
}

#[derive(Parser)]
#[command(name = "[rootfs]", no_binary_name = true, disable_help_flag = true)]
struct Rootfs {
    #[command(flatten)]
    args: rootfs::Args,
}

#[derive(Parser)]
#[command(name = "[classify]", no_binary_name = true, disable_help_flag = true)]
struct Classify {
    #[command(flatten)]
    args: classify::Args,
}

impl Campaign {
    /// Reads a campaign file; `None` if it is of another kind.
    ///
    /// # Errors
    /// [`Error::Source`] if it has a `[rootfs]` table and is no such campaign.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        let refuse = |reason: String| Error::Source { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| refuse(e.to_string()))?;
        // What is no TOML at all is told by the reader of the other kind, with its line.
        let Ok(table) = text.parse::<toml::Table>() else { return Ok(None) };
        if table.contains_key("rootfs") { Self::parse(table).map(Some).map_err(refuse) } else { Ok(None) }
    }

    fn parse(mut table: toml::Table) -> Result<Self, String> {
        let mut text = |key: &str| match table.remove(key) {
            Some(toml::Value::String(text)) => Ok(text),
            Some(_) => Err(format!("{key} is no string")),
            None => Err(format!("{key} is missing")),
        };
        let (name, output) = (text("name")?, text("output")?.into());
        let mut stage = |key: &str, command: &clap::Command| match table.remove(key) {
            Some(toml::Value::Table(stage)) => {
                arguments(stage, command).map(Some).map_err(|e| format!("[{key}] {e}"))
            }
            Some(_) => Err(format!("{key} is no table")),
            None => Ok(None),
        };
        let rootfs = stage("rootfs", &Rootfs::command())?.unwrap_or_default();
        let classify = stage("classify", &Classify::command())?;
        match table.keys().next() {
            Some(key) => Err(format!("{key} is no key of a campaign over images")),
            None => Ok(Self { name, output, rootfs, classify }),
        }
    }
}

/// `KEY = VALUE` as `--KEY=VALUE`, with `-` for `_`; a list is the option again and again; `images` are
/// the arguments without a name. False and an empty list are no argument, of an option that there is.
fn arguments(stage: toml::Table, command: &clap::Command) -> Result<Vec<String>, String> {
    let mut arguments = Vec::new();
    let mut plain = Vec::new();
    for (key, value) in stage {
        let name = key.replace('_', "-");
        let known = command.get_arguments().find(|argument| argument.get_long() == Some(&name));
        if known.is_none() && key != "images" {
            return Err(format!("has no key {key}"));
        }
        let takes_value = known.is_none_or(|argument| argument.get_action().takes_values());
        let option = format!("--{name}");
        let values = match value {
            toml::Value::Array(values) => values,
            toml::Value::Boolean(_) if takes_value => {
                return Err(format!("{key} takes a value, not true or false"));
            }
            toml::Value::Boolean(given) => {
                arguments.extend(given.then_some(option));
                continue;
            }
            value => vec![value],
        };
        for value in values {
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                _ => {
                    return Err(format!("{key} is neither text, number, true or false, nor a list of these"));
                }
            };
            if key == "images" {
                plain.push(text);
            } else {
                arguments.push(format!("{option}={text}"));
            }
        }
    }
    arguments.push("--".into());
    arguments.extend(plain);
    Ok(arguments)
}

/// A list in the place of the campaign's images, however it names them.
fn take_images_from(list: &Path, arguments: &mut Vec<String>) {
    let options = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    arguments.truncate(options);
    arguments.retain(|argument| !argument.starts_with("--list="));
    arguments.push(format!("--list={}", list.display()));
}

/// What clap says, in one line.
fn refusal(path: &Path, error: &clap::Error) -> Error {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim);
    let reason: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    let reason = reason.join(" ");
    Error::Source { path: path.to_owned(), reason: reason.trim_start_matches("error: ").to_owned() }
}

/// Runs the campaign: layers, then bases.
pub fn run(campaign: &Campaign, args: &super::Args, context: &Context) -> anyhow::Result<Code> {
    let of_no_use =
        [("--plan", args.plan), ("--memory", args.memory.is_some()), ("--overwrite", args.overwrite)];
    if let Some((option, _)) = of_no_use.iter().find(|(_, given)| *given) {
        let reason = format!("is a campaign over images, which takes no {option}");
        return Err(Error::Source { path: args.config.clone(), reason }.into());
    }
    let out = args.out.as_ref().unwrap_or(&campaign.output);
    let refuse = |error: clap::Error| refusal(&args.config, &error);
    let mut rootfs = campaign.rootfs.clone();
    if let Some(source) = &args.source {
        take_images_from(source, &mut rootfs);
    }
    rootfs.insert(0, format!("--output={}", out.display()));
    let rootfs = Rootfs::try_parse_from(rootfs).map_err(refuse)?.args;
    let classify = campaign.classify.as_ref().map(|arguments| {
        let mut all = arguments.clone();
        if !all.iter().any(|argument| argument.starts_with("--json=")) {
            all.insert(0, format!("--json={}", out.join("classify.json").display()));
        }
        all.push(out.join("rootfs.h5").display().to_string());
        Classify::try_parse_from(all).map_err(refuse)
    });
    let classify = classify.transpose()?.map(|parsed| parsed.args);
    show::line(context, format!("campaign {} -> {}", campaign.name, out.display()));
    super::heading(context, "layers");
    let code = rootfs::run(&rootfs, context)?;
    if context.stop.anywhere(&context.world) {
        return Ok(Code::Requeue);
    }
    // Images that could not be read are no reason not to answer for the others.
    let (Code::Done | Code::DoneWithLosses, Some(classify)) = (code, &classify) else { return Ok(code) };
    super::heading(context, "bases");
    Ok(match classify::run(classify, context)? {
        Code::Done => code,
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Campaign, String> {
        Campaign::parse(text.parse().unwrap())
    }

    const HEAD: &str = "name = 'a'\noutput = 'b'\n";

    #[test]
    fn keys_are_options_in_the_order_of_their_names() {
        let text = format!(
            "{HEAD}[rootfs]\nimages = ['x:1', 'y']\nuniverse = 'u'\nall_tags = true\ntoc = false\nconnections = 3\nplain_http = ['h:1', 'i']\nrequest_rate = 2.5\n"
        );
        let campaign = parse(&text).unwrap();
        assert_eq!(
            campaign.rootfs,
            [
                "--all-tags",
                "--connections=3",
                "--plain-http=h:1",
                "--plain-http=i",
                "--request-rate=2.5",
                "--universe=u",
                "--",
                "x:1",
                "y"
            ]
        );
        assert!(campaign.classify.is_none());
        let arguments = [vec!["--output=o".to_owned()], campaign.rootfs].concat();
        assert!(Rootfs::try_parse_from(arguments).is_ok());
    }

    #[test]
    fn another_list_replaces_all_images() {
        let text =
            format!("{HEAD}[rootfs]\nimages = ['x:1', '--list=y']\nlist = ['a', 'b']\nuniverse = 'u'\n");
        let mut arguments = parse(&text).unwrap().rootfs;
        take_images_from(Path::new("mine"), &mut arguments);
        assert_eq!(arguments, ["--universe=u", "--list=mine"]);
    }

    #[test]
    fn mistakes_are_told() {
        for (text, told) in [
            ("output = 'b'\n[rootfs]\n", "name is missing"),
            ("name = 3\noutput = 'b'\n[rootfs]\n", "name is no string"),
            ("name = 'a'\noutput = 'b'\nrootfs = 1\n", "rootfs is no table"),
            ("name = 'a'\noutput = 'b'\nsource = 'c'\n[rootfs]\n", "source is no key"),
            ("name = 'a'\noutput = 'b'\n[rootfs]\nlist = [[1]]\n", "[rootfs] list is neither"),
            ("name = 'a'\noutput = 'b'\n[rootfs]\nconections = 3\n", "[rootfs] has no key conections"),
            ("name = 'a'\noutput = 'b'\n[rootfs]\nstrict_platfrom = false\n", "has no key strict_platfrom"),
            ("name = 'a'\noutput = 'b'\n[rootfs]\nplain_htpp = []\n", "has no key plain_htpp"),
            ("name = 'a'\noutput = 'b'\n[rootfs]\nconnections = false\n", "connections takes a value"),
            ("name = 'a'\noutput = 'b'\n[rootfs]\n[classify]\nshwo = []\n", "[classify] has no key shwo"),
        ] {
            assert!(parse(text).unwrap_err().contains(told), "{text}");
        }
        let campaign = parse(&format!("{HEAD}[rootfs]\nuniverse = 'u'\nconnections = 'many'\n")).unwrap();
        let arguments = [vec!["--output=o".to_owned()], campaign.rootfs].concat();
        let error = Rootfs::try_parse_from(arguments).err().unwrap();
        let told = refusal(Path::new("c.toml"), &error).to_string();
        assert!(told.contains("--connections") && told.lines().count() == 1, "{told}");
    }
}
