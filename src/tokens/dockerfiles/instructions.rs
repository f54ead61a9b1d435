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
            for body in lines.by_ref() {
                let end = if tabs { body.trim_start_matches('\t') } else { body };
                if end.trim_end() == delimiter {
                    break;
                }
                instruction.push('\n');
                instruction.push_str(body);
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
/// dropped before them.
fn here_documents(instruction: &str) -> Vec<(String, bool)> {
    let keyword = instruction.split_whitespace().next().unwrap_or_default();
    if !["RUN", "COPY", "ADD"].iter().any(|k| k.eq_ignore_ascii_case(keyword)) {
        return Vec::new();
    }
    let words = instruction.split_whitespace().filter_map(|word| {
        let (_, word) = word.split_once("<<")?;
        let (word, tabs) = word.strip_prefix('-').map_or((word, false), |word| (word, true));
        let word = word.trim_matches(['"', '\'']);
        let is_name = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        is_name.then(|| (word.to_owned(), tabs))
    });
    words.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

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
