//! What the tokens of one command tell about good practice: a kernel on token ids.
//!
//! The study asks whether a text *contains* `apt`, `get`, `install`, `rm` or `clean`, and
//! `autoremove` (so `capture` counts as `apt`): [`Facts::APT`] to [`Facts::AUTOREMOVE`], as it
//! defines them. The others ask for words, in the order in which the guides of the builders
//! (docs.docker.com, "Building best practices") advise them.

use crate::strings::{Interner, StringTable};

/// A set of facts about one text, and which instruction it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts(pub u32);

impl Facts {
    /// A token contains `apt`.
    pub const APT: Self = Self(1);
    /// A token contains `get`.
    pub const GET: Self = Self(1 << 1);
    /// A token contains `install`.
    pub const INSTALL: Self = Self(1 << 2);
    /// A token contains `rm` or `clean`.
    pub const CLEANED: Self = Self(1 << 3);
    /// A token contains `autoremove`.
    pub const AUTOREMOVE: Self = Self(1 << 4);
    /// `apt update`: the word after `apt` or `apt get`, with at most four others between besides options that
    /// are known; `apt-key` and its like are no `apt`.
    pub const APT_UPDATE: Self = Self(1 << 5);
    /// `apt install`, likewise.
    pub const APT_INSTALL: Self = Self(1 << 6);
    /// `var lib apt lists`: the package lists are named; in a command that is their removal.
    pub const LISTS: Self = Self(1 << 7);
    /// `no install recommends`.
    pub const NO_RECOMMENDS: Self = Self(1 << 8);
    /// `pip install` (also `pip2`, `pip3`), with nothing between but options that are known.
    pub const PIP_INSTALL: Self = Self(1 << 9);
    /// `no cache dir`.
    pub const NO_CACHE_DIR: Self = Self(1 << 10);
    /// The first argument, after flags, is an address (`http`, `https`, `ftp`).
    pub const ADDRESS: Self = Self(1 << 11);
    /// A RUN instruction, or a shell command that is not marked `nop`.
    pub const RUN: Self = Self(1 << 12);
    /// An ADD instruction.
    pub const ADD: Self = Self(1 << 13);
    /// A USER instruction.
    pub const USER: Self = Self(1 << 14);

    /// The facts that a token, or a text, tells by what it contains.
    pub fn contained(text: &str) -> Self {
        let mut facts = Self::default();
        let bytes = text.as_bytes();
        for (at, first) in bytes.iter().enumerate() {
            let rest = &bytes[at..];
            let found = match first {
                b'a' if rest.starts_with(b"apt") => Self::APT,
                b'a' if rest.starts_with(b"autoremove") => Self::AUTOREMOVE,
                b'c' if rest.starts_with(b"clean") => Self::CLEANED,
                b'g' if rest.starts_with(b"get") => Self::GET,
                b'i' if rest.starts_with(b"install") => Self::INSTALL,
                b'r' if rest.starts_with(b"rm") => Self::CLEANED,
                _ => continue,
            };
            facts = facts.and(found);
        }
        facts
    }

    /// True if all of `facts` hold.
    pub fn has(self, facts: Self) -> bool {
        self.0 & facts.0 == facts.0
    }

    /// Both sets.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Words that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Other,
    Add,
    Address,
    Apt,
    Bin,
    Cache,
    Dir,
    Get,
    Install,
    /// A Dockerfile instruction other than RUN, ADD and USER.
    Instruction,
    Lib,
    Lists,
    No,
    Nop,
    /// What makes another program of `apt` before or after it (`apt-key`).
    NoApt,
    /// A part of an option of apt or pip that stands before `install`.
    Option,
    /// A flag of ADD.
    Flag,
    Path,
    Pip,
    Recommends,
    Run,
    Shell,
    Update,
    User,
    Var,
}

impl Word {
    fn of(token: &str) -> Self {
        match token {
            "add" => Self::Add,
            "http" | "https" | "ftp" => Self::Address,
            "apt" => Self::Apt,
            "bin" => Self::Bin,
            "cache" => Self::Cache,
            "dir" => Self::Dir,
            "get" => Self::Get,
            "install" => Self::Install,
            "arg" | "cmd" | "copy" | "entrypoint" | "env" | "expose" | "healthcheck" | "label"
            | "maintainer" | "onbuild" | "shell" | "stopsignal" | "volume" | "workdir" => Self::Instruction,
            "lib" => Self::Lib,
            "lists" => Self::Lists,
            "no" => Self::No,
            "nop" => Self::Nop,
            "key" | "mark" | "config" | "file" | "utils" | "transport" | "docker" => Self::NoApt,
            "assume" | "check" | "default" | "disable" | "isolated" | "python" | "q" | "qq" | "qy"
            | "quiet" | "require" | "retries" | "suggests" | "timeout" | "v" | "verbose" | "version"
            | "virtualenv" | "y" | "yes" | "yq" | "yqq" => Self::Option,
            _ if token.bytes().all(|b| b.is_ascii_digit()) => Self::Option,
            "checksum" | "chmod" | "chown" | "exclude" | "keep" | "link" | "unpack" => Self::Flag,
            "etc" | "log" => Self::Path,
            "pip" | "pip2" | "pip3" => Self::Pip,
            "recommends" => Self::Recommends,
            "run" => Self::Run,
            "sh" | "bash" | "ash" | "dash" => Self::Shell,
            "update" => Self::Update,
            "user" => Self::User,
            "var" => Self::Var,
            _ => Self::Other,
        }
    }
}

/// Looks at texts whose tokens are interned; each distinct token is looked at once.
#[derive(Debug, Default)]
pub struct Scanner {
    words: Vec<(Word, Facts)>,
}

impl Scanner {
    /// Learns the tokens that are new in the interner.
    pub fn learn(&mut self, vocabulary: &Interner) {
        self.learn_table(vocabulary.table());
    }

    /// Learns the tokens that are new in a table.
    pub fn learn_table(&mut self, table: &StringTable) {
        for id in self.words.len()..table.len() {
            let token = table.get(id as u32);
            self.words.push((Word::of(token), Facts::contained(token)));
        }
    }

    /// Facts of a text, as far as containment goes.
    pub fn contained(&self, tokens: &[u32]) -> Facts {
        tokens.iter().fold(Facts::default(), |all, t| all.and(self.words[*t as usize].1))
    }

    /// Facts of the text of a history entry.
    pub fn of_entry(&self, tokens: &[u32]) -> Facts {
        let facts = self.of_words(tokens).and(self.kind(tokens));
        let add = tokens.iter().position(|t| self.words[*t as usize].0 == Word::Add);
        facts.and(add.map_or(Facts::default(), |add| self.address(&tokens[add + 1..])))
    }

    /// Facts of the arguments of an instruction, without which instruction it is.
    pub fn of_command(&self, tokens: &[u32]) -> Facts {
        self.of_words(tokens).and(self.address(tokens))
    }

    /// Whether the first of these arguments that is no flag is an address.
    fn address(&self, arguments: &[u32]) -> Facts {
        // Words of flags: `--checksum=sha256:...`, `--chown=user:group`.
        const FLAGS: usize = 8;
        let mut words = arguments.iter().map(|t| self.words[*t as usize].0);
        let found = match words.next() {
            Some(Word::Flag) => words.take(FLAGS).any(|word| word == Word::Address),
            first => first == Some(Word::Address),
        };
        if found { Facts::ADDRESS } else { Facts::default() }
    }

    fn of_words(&self, tokens: &[u32]) -> Facts {
        /// Other words between `apt` and what it does.
        const BETWEEN: usize = 4;
        let word = |i: usize| tokens.get(i).map_or(Word::Other, |t| self.words[*t as usize].0);
        let mut facts = self.contained(tokens);
        // How many words may still come before what apt does, plus one, and whether pip is being called.
        let (mut apt, mut pip) = (0usize, false);
        for i in 0..tokens.len() {
            let back = |k: usize| i.checked_sub(k).map_or(Word::Other, word);
            let found = match word(i) {
                Word::Apt => {
                    let before = [Word::Lib, Word::Path, Word::Cache, Word::NoApt].contains(&back(1));
                    let after = [Word::Cache, Word::NoApt].contains(&word(i + 1));
                    (apt, pip) = (if before || after { 0 } else { BETWEEN + 1 }, false);
                    Facts::default()
                }
                Word::Pip => {
                    pip = true;
                    Facts::default()
                }
                Word::Update if apt > 0 => {
                    apt = 0;
                    Facts::APT_UPDATE
                }
                // Of `--no-install-recommends`, or of apt's configuration.
                Word::Install if back(1) == Word::No || word(i + 1) == Word::Recommends => Facts::default(),
                Word::Install => {
                    let by_apt = if apt > 0 { Facts::APT_INSTALL } else { Facts::default() };
                    let by_pip = if pip { Facts::PIP_INSTALL } else { Facts::default() };
                    (apt, pip) = (0, false);
                    by_apt.and(by_pip)
                }
                Word::Lists if [back(1), back(2), back(3)] == [Word::Apt, Word::Lib, Word::Var] => {
                    Facts::LISTS
                }
                Word::Recommends if [back(1), back(2)] == [Word::Install, Word::No] => Facts::NO_RECOMMENDS,
                Word::Dir if [back(1), back(2)] == [Word::Cache, Word::No] => Facts::NO_CACHE_DIR,
                _ => Facts::default(),
            };
            facts = facts.and(found);
            match word(i) {
                Word::Apt | Word::Pip | Word::Option | Word::No | Word::Install | Word::Recommends => (),
                Word::Get => pip = false,
                Word::Cache | Word::Dir | Word::User => apt = apt.saturating_sub(1),
                _ => (apt, pip) = (apt.saturating_sub(1), false),
            }
        }
        facts
    }

    /// Which instruction a history entry is: `RUN ...`, `ADD ...` (BuildKit), `/bin/sh -c #(nop)
    /// ADD ...` (the classic builder, where a RUN is what is not marked), also with the words of another
    /// `SHELL` (`/bin/bash -o pipefail -c #(nop) ADD ...`), `|1 ARG=x /bin/sh -c ...`.
    fn kind(&self, tokens: &[u32]) -> Facts {
        let word = |i: usize| tokens.get(i).map_or(Word::Other, |t| self.words[*t as usize].0);
        let named = |word| match word {
            Word::Add => Facts::ADD,
            Word::User => Facts::USER,
            Word::Run => Facts::RUN,
            _ => Facts::default(),
        };
        // An image's shell has few options. The mark stands before an instruction; `nop` in a command hardly ever.
        const OPTIONS: usize = 6;
        let is_instruction = |w| matches!(w, Word::Add | Word::User | Word::Run | Word::Instruction);
        let marked = || (3..3 + OPTIONS).find(|i| word(i - 1) == Word::Nop && is_instruction(word(*i)));
        let starts_shell = [word(0), word(1)] == [Word::Bin, Word::Shell];
        if let Some(instruction) = marked().filter(|_| starts_shell) {
            return named(word(instruction));
        }
        match [word(0), word(1), word(2)] {
            [Word::Bin, Word::Shell, Word::Nop] => Facts::default(),
            [first, ..] if is_instruction(first) => named(first),
            _ => {
                let is_shell = |i: usize| word(i) == Word::Bin && word(i + 1) == Word::Shell;
                if (0..tokens.len()).any(is_shell) { Facts::RUN } else { Facts::default() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::*;

    fn facts(text: &str) -> Facts {
        let (mut vocabulary, mut tokens) = (Interner::default(), Vec::new());
        Rules::histories().each(text, &mut String::new(), |t| tokens.push(vocabulary.intern(t)));
        let mut scanner = Scanner::default();
        scanner.learn(&vocabulary);
        scanner.of_entry(&tokens)
    }

    #[test]
    fn instructions_of_another_shell_are_no_runs() {
        let kinds = [Facts::ADD, Facts::USER, Facts::RUN];
        let of = |text: &str| kinds.map(|kind| facts(text).has(kind));
        assert_eq!(of("/bin/bash -o pipefail -c #(nop) ADD file:1 in /"), [true, false, false]);
        assert_eq!(of("/bin/bash -eu -o pipefail -c #(nop)  USER me"), [false, true, false]);
        assert_eq!(of("/bin/bash -lc #(nop) CMD [\"/bin/bash\"]"), [false; 3]);
        assert_eq!(of("/bin/bash -o pipefail -c echo nop here"), [false, false, true]);
        assert_eq!(of("/bin/bash -o pipefail -c make"), [false, false, true]);
    }

    #[test]
    fn commands_are_understood() {
        let text = "/bin/sh -c apt-get update -qq && apt-get install -y --no-install-recommends curl && rm -rf /var/lib/apt/lists/*";
        let f = facts(text);
        for fact in [
            Facts::APT_UPDATE,
            Facts::APT_INSTALL,
            Facts::LISTS,
            Facts::NO_RECOMMENDS,
            Facts::RUN,
            Facts::APT,
            Facts::GET,
            Facts::CLEANED,
        ] {
            assert!(f.has(fact), "{fact:?}");
        }
        assert!(!f.has(Facts::AUTOREMOVE) && !f.has(Facts::PIP_INSTALL) && !f.has(Facts::ADDRESS));
        // The path is no command, and neither is the option.
        assert!(!facts("RUN rm -rf /var/lib/apt/lists/* && npm install").has(Facts::APT_INSTALL));
        assert!(!facts("RUN apt-get --no-install-recommends download x").has(Facts::APT_INSTALL));
        assert!(facts("RUN pip3 --no-cache-dir install x").has(Facts::PIP_INSTALL.and(Facts::NO_CACHE_DIR)));
        let pip = |text: &str| facts(text).has(Facts::PIP_INSTALL);
        assert!(pip("RUN python3 -m pip --default-timeout=100 -q install x") && pip("RUN pip3.10 install x"));
        assert!(!pip(
            "RUN ln -s pip3 pip && { [ -s /usr/local/bin/easy_install ] || ln -s easy_install-* easy_install; }"
        ));
        assert!(!pip("RUN pip3 list && npm install"));
        let apt = |text: &str| [Facts::APT_UPDATE, Facts::APT_INSTALL].map(|fact| facts(text).has(fact));
        assert_eq!(apt("RUN apt-get -qq -y --no-install-recommends install x"), [false, true]);
        assert_eq!(apt("RUN apt-get -o Acquire::Retries=3 update"), [true, false]);
        assert_eq!(apt("RUN apt-get install -y x && update-ca-certificates"), [false, true]);
        assert_eq!(apt("RUN apt-key update && docker-apt-install x"), [false; 2]);
        assert_eq!(
            apt("RUN echo 'APT::Install-Recommends \"false\";' > /etc/apt/apt.conf.d/99x"),
            [false; 2]
        );
        let address = |text: &str| facts(text).has(Facts::ADD.and(Facts::ADDRESS));
        assert!(address("ADD https://example.org/x /x # buildkit"));
        assert!(address("ADD --chown=me:us --checksum=sha256:24 https://example.org/x /x # buildkit"));
        assert!(address("/bin/sh -c #(nop) ADD http://example.org/x in /"));
        assert!(!address("/bin/sh -c #(nop) ADD file:12ab in /etc/trace_ftp-master.debian.org"));
        assert!(!address("ADD detect-http-proxy /etc/apt/"));
        assert!(facts("RUN capture").has(Facts::APT) && !facts("RUN capture").has(Facts::APT_UPDATE));
    }

    #[test]
    fn kinds_of_entries() {
        let kind = |text| Facts(facts(text).0 & Facts::RUN.and(Facts::ADD).and(Facts::USER).0);
        assert_eq!(kind("/bin/sh -c #(nop)  USER app"), Facts::USER);
        assert_eq!(kind("USER app"), Facts::USER);
        assert_eq!(kind("/bin/sh -c #(nop) ADD file:ab in /"), Facts::ADD);
        assert_eq!(kind("ADD https://example.org/x /x # buildkit"), Facts::ADD);
        assert_eq!(kind("/bin/sh -c useradd user"), Facts::RUN);
        assert_eq!(kind("RUN /bin/sh -c make # buildkit"), Facts::RUN);
        assert_eq!(kind("|1 VERSION=22 /bin/bash -c make"), Facts::RUN);
        assert_eq!(kind("/bin/sh -c #(nop)  CMD [\"/bin/bash\"]"), Facts::default());
        assert_eq!(kind("CMD [\"/bin/bash\"]"), Facts::default());
        assert_eq!(kind("bazel build ..."), Facts::default());
    }
}
