//! A Dockerfile's instructions: continuation lines joined, comments dropped, here-documents kept.
//!
//! As in the Dockerfile reference: `\` at the end of a line (or what an `escape` directive names)
//! continues it; comment lines and empty lines inside an instruction do not end it.

/// Calls `take` with keyword (in capitals) and arguments of each instruction.
pub(super) fn each_instruction(text: &str, mut take: impl FnMut(&str, &str)) {
    let escape = escape_of(text);
    let mut lines = text.lines();
    let mut instruction = String::new();
    while let Some(line) = lines.next() {
        let shown = line.trim();
        if shown.is_empty() || shown.starts_with('#') {
            continue;
        }
        if let Some(begun) = shown.strip_suffix(escape) {
            instruction.push_str(begun);
            instruction.push(' ');
            continue;
        }
        instruction.push_str(shown);
        for (delimiter, tabs) in here_documents(&instruction) {
            let begun = instruction.len();
            let mut ahead = lines.clone();
            let ended = ahead.by_ref().any(|body| {
                let end = if tabs { body.trim_start_matches('\t') } else { body };
                let is_end = end.trim_end() == delimiter;
                if !is_end {
                    instruction.push('\n');
                    instruction.push_str(body);
                }
                is_end
            });
            // Without an end nobody could build it; what follows are instructions then.
            if ended {
                lines = ahead;
            } else {
                instruction.truncate(begun);
            }
        }
        give(&instruction, &mut take);
        instruction.clear();
    }
    give(&instruction, &mut take);
}

fn give(instruction: &str, take: &mut impl FnMut(&str, &str)) {
    let instruction = instruction.trim();
    let (keyword, arguments) = instruction.split_once(char::is_whitespace).unwrap_or((instruction, ""));
    if !keyword.is_empty() {
        take(&keyword.to_ascii_uppercase(), arguments);
    }
}

/// The character that continues a line: directives stand before everything else.
fn escape_of(text: &str) -> char {
    let comments = text.lines().map_while(|line| line.trim().strip_prefix('#'));
    let directives = comments.map_while(|comment| comment.split_once('='));
    let escape = directives.filter(|(name, _)| name.trim().eq_ignore_ascii_case("escape"));
    escape.filter_map(|(_, value)| value.trim().chars().next()).next().unwrap_or('\\')
}

/// Delimiters of the here-documents that an instruction opens, and whether leading tabs are
/// dropped before them. As for BuildKit, `<<` opens one at the begin of a word, after digits at most:
/// not within quotes, nor within a word.
fn here_documents(instruction: &str) -> Vec<(String, bool)> {
    let keyword = instruction.split_whitespace().next().unwrap_or_default();
    if !["RUN", "COPY", "ADD"].iter().any(|k| k.eq_ignore_ascii_case(keyword)) {
        return Vec::new();
    }
    let words = words(instruction).into_iter().filter_map(|word| {
        let word = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
        let (word, tabs) = word.strip_prefix('-').map_or((word, false), |word| (word, true));
        let word = word.trim_matches(['"', '\'']);
        let is_name = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        is_name.then(|| (word.to_owned(), tabs))
    });
    words.collect()
}

/// Words between blanks outside of quotes, quotes and backslashes kept.
fn words(text: &str) -> Vec<&str> {
    let (mut words, mut begin, mut quote, mut escaped) = (Vec::new(), None, None, false);
    for (i, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if quote.is_some_and(|q| q == c) {
            quote = None;
        } else if c == '\\' && quote != Some('\'') {
            escaped = true;
        } else if quote.is_none() && matches!(c, '"' | '\'') {
            quote = Some(c);
        } else if quote.is_none() && c.is_whitespace() {
            words.extend(begin.take().map(|begin| &text[begin..i]));
            continue;
        }
        begin.get_or_insert(i);
    }
    words.extend(begin.map(|begin| &text[begin..]));
    words
}

/// What a FROM instruction names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// An image without tag, which means `latest`.
    Untagged,
    /// The tag `latest`.
    Latest,
    /// Another tag.
    Tagged,
    /// A digest.
    Digest,
    /// An image that depends on a build argument.
    Variable,
    /// `scratch`.
    Scratch,
    /// An earlier stage.
    Stage,
}

/// Reads the arguments of FROM; a name that the stage gets is added to `stages`.
pub(super) fn base_of(arguments: &str, stages: &mut Vec<String>) -> Option<Base> {
    let mut words = arguments.split_whitespace().filter(|word| !word.starts_with("--"));
    let image = words.next()?;
    let base = if image.contains('$') {
        Base::Variable
    } else if image.eq_ignore_ascii_case("scratch") {
        Base::Scratch
    } else if stages.iter().any(|stage| stage.eq_ignore_ascii_case(image)) {
        Base::Stage
    } else if image.contains('@') {
        Base::Digest
    } else {
        match image.rsplit('/').next().and_then(|name| name.split_once(':')) {
            Some((_, "latest")) => Base::Latest,
            Some(_) => Base::Tagged,
            None => Base::Untagged,
        }
    };
    if words.next().is_some_and(|word| word.eq_ignore_ascii_case("as")) {
        stages.extend(words.next().map(str::to_owned));
    }
    Some(base)
}

/// True if a COPY takes files from an earlier stage, by its name or number; `--from` can name an image, too.
pub(super) fn copies_from_stage(arguments: &str, stages: &[String], begun: u32) -> bool {
    let flags = arguments.split_whitespace().take_while(|word| word.starts_with("--"));
    flags.filter_map(|flag| flag.strip_prefix("--from=")).any(|from| match from.parse::<u32>() {
        Ok(number) => number < begun.saturating_sub(1),
        Err(_) => stages.iter().any(|stage| stage.eq_ignore_ascii_case(from)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_told_from_images() {
        let copies = |arguments, begun| copies_from_stage(arguments, &["Build".to_owned()], begun);
        assert!(copies("--chown=a:b --from=build /x /y", 2) && copies("--from=0 /x /y", 2));
        assert!(!copies("--from=1 /x /y", 2) && !copies("--from=0 /x /y", 1));
        assert!(!copies("--from=busybox:1 /x /y", 2) && !copies("/x --from=build /y", 2));
        assert!(!copies("--from=4294967295 /x /y", 2));
    }

    fn instructions(text: &str) -> Vec<(String, String)> {
        let mut out = Vec::new();
        each_instruction(text, |keyword, rest| out.push((keyword.to_owned(), rest.to_owned())));
        out
    }

    fn pair(keyword: &str, rest: &str) -> (String, String) {
        (keyword.to_owned(), rest.to_owned())
    }

    #[test]
    fn lines_are_joined() {
        let text = "# x\nfrom a:1\n\nRUN apt-get update \\\n # why\n\n && make \\  \r\n  clean\nUSER me";
        let wanted = [pair("FROM", "a:1"), pair("RUN", "apt-get update  && make  clean"), pair("USER", "me")];
        assert_eq!(instructions(text), wanted);
        assert_eq!(
            instructions("# escape=`\nRUN a `\n b\\\nUSER x"),
            [pair("RUN", "a  b\\"), pair("USER", "x")]
        );
        assert_eq!(instructions("RUN a \\"), [pair("RUN", "a")]);
        assert_eq!(instructions("\n \n#"), []);
    }

    #[test]
    fn what_only_looks_like_a_here_document_swallows_nothing() {
        for (run, rest) in [
            (r#"echo "if x; then cat <<EOF" > f"#, "USER me\nRUN b"),
            ("echo 'a <<EOF b'", "USER me\nRUN b"),
            (r"echo \<<EOF", "USER me\nRUN b"),
            ("x=$((1<<EOF))", "USER me\nRUN b"),
            ("cat <<EOF > f", "USER me\nRUN b"),
        ] {
            let found = instructions(&format!("RUN {run}\n{rest}"));
            assert_eq!(found, [pair("RUN", run), pair("USER", "me"), pair("RUN", "b")], "{run}");
        }
        let found = instructions("RUN cat 3<<'E' && echo \"it's\"\nUSER no\nE\nUSER me");
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn here_documents_belong_to_their_instruction() {
        let text = "RUN <<EOF bash\nUSER no\nEOF\nCOPY <<-\"A\" <<B /x/\none\n\tA\ntwo\nB\nRUN cat <<< word\nUSER me";
        let found = instructions(text);
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(found[0], pair("RUN", "<<EOF bash\nUSER no"));
        assert_eq!(found[1], pair("COPY", "<<-\"A\" <<B /x/\none\ntwo"));
        assert_eq!(found[3], pair("USER", "me"));
    }

    #[test]
    fn bases_are_told_apart() {
        let mut stages = Vec::new();
        for (arguments, base) in [
            ("ubuntu", Base::Untagged),
            ("--platform=linux/amd64 host:5000/a/b AS build", Base::Untagged),
            ("a:latest", Base::Latest),
            ("host:5000/a:1", Base::Tagged),
            ("a:1@sha256:00", Base::Digest),
            ("a:${TAG}", Base::Variable),
            ("scratch", Base::Scratch),
            ("BUILD as last", Base::Stage),
        ] {
            assert_eq!(base_of(arguments, &mut stages), Some(base), "{arguments}");
        }
        assert_eq!(stages, ["build", "last"]);
        assert_eq!(base_of("--platform=x", &mut stages), None);
    }
}
