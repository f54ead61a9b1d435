//! Counts of good and bad practice: plain numbers, for JSON and the terminal.

use super::facts::Facts;
use serde::{Deserialize, Serialize};

/// The study's counts of apt on one corpus of lines. A line counts by what it *contains*.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apt {
    /// Lines.
    pub lines: u64,
    /// With `apt` and `get`.
    pub apt_get: u64,
    /// Of these, with `install`.
    pub apt_get_with_install: u64,
    /// With `apt`.
    pub apt: u64,
    /// Of these, with `rm` or `clean` and no `autoremove`.
    pub apt_cleaned: u64,
    /// Of these, with `autoremove` and neither `rm` nor `clean`.
    pub apt_autoremove: u64,
    /// Of these, with both.
    pub apt_cleaned_and_autoremoved: u64,
}

/// The study's published shares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PublishedApt {
    /// Lines of its corpus.
    pub lines: u64,
    /// Share of lines with `apt` and `get` that have `install`.
    pub install_of_apt_get: f64,
    /// Lines with `apt`.
    pub apt: u64,
    /// Of these, cleaned.
    pub apt_cleaned: u64,
    /// Of these, autoremoved.
    pub apt_autoremove: u64,
    /// Of these, both.
    pub apt_cleaned_and_autoremoved: u64,
}

/// The study's counts in all readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct StudyApt {
    /// What the study reports, for its whole crawl.
    pub published: PublishedApt,
    /// As published: by the tokenizer of its first version, layer by layer.
    pub first_version: Apt,
    /// On the cumulative layer documents, which its later scripts write: a layer counts for all
    /// that came before it.
    pub cumulative: Apt,
    /// Corrected: by today's tokenizer, layer by layer.
    pub per_layer: Apt,
}

impl StudyApt {
    /// Source: `experiments/dockerfile/README.md` of converged-computing/container-chonks, "Best
    /// Practices".
    pub const PUBLISHED: PublishedApt = PublishedApt {
        lines: 6_535_425,
        install_of_apt_get: 0.942_971_666_059_346_7,
        apt: 605_432,
        apt_cleaned: 410_664,
        apt_autoremove: 295,
        apt_cleaned_and_autoremoved: 67_752,
    };
}

/// Practices of commands, each counted where it stands ([`Facts`] says what is looked for).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Practices {
    /// Layers (history entries with a command) or instructions.
    pub commands: u64,
    /// RUN instructions.
    pub run: u64,
    /// With `apt update`.
    pub apt_update: u64,
    /// With `apt update` and no `apt install`: the lists go stale in a layer of their own.
    pub apt_update_alone: u64,
    /// With `apt install`.
    pub apt_install: u64,
    /// Of these, with `apt update` in the same layer.
    pub apt_install_with_update: u64,
    /// Of these, with the lists removed in the same layer.
    pub apt_install_lists_removed: u64,
    /// Of these, with `--no-install-recommends`.
    pub apt_install_no_recommends: u64,
    /// With `pip install`.
    pub pip_install: u64,
    /// Of these, with `--no-cache-dir`.
    pub pip_install_no_cache: u64,
    /// ADD instructions.
    pub add: u64,
    /// Of these, of an address.
    pub add_of_url: u64,
}

impl Practices {
    /// Counts one command.
    pub(super) fn add(&mut self, facts: Facts) {
        let run = facts.has(Facts::RUN);
        let (update, install) = (run && facts.has(Facts::APT_UPDATE), run && facts.has(Facts::APT_INSTALL));
        let pip = run && facts.has(Facts::PIP_INSTALL);
        let add = facts.has(Facts::ADD);
        for (n, is) in [
            (&mut self.commands, true),
            (&mut self.run, run),
            (&mut self.apt_update, update),
            (&mut self.apt_update_alone, update && !install),
            (&mut self.apt_install, install),
            (&mut self.apt_install_with_update, install && update),
            (&mut self.apt_install_lists_removed, install && facts.has(Facts::LISTS.and(Facts::CLEANED))),
            (&mut self.apt_install_no_recommends, install && facts.has(Facts::NO_RECOMMENDS)),
            (&mut self.pip_install, pip),
            (&mut self.pip_install_no_cache, pip && facts.has(Facts::NO_CACHE_DIR)),
            (&mut self.add, add),
            (&mut self.add_of_url, add && facts.has(Facts::ADDRESS)),
        ] {
            *n += u64::from(is);
        }
    }
}

/// How a number per image is spread. Percentiles are the smallest value that at least that share of
/// the images do not exceed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean; none without images.
    pub mean: Option<f64>,
    /// Median.
    pub median: u64,
    /// 95th percentile.
    pub p95: u64,
    /// Greatest.
    pub max: u64,
}

impl Spread {
    /// Of these numbers; sorts them.
    pub(super) fn of(numbers: &mut [u64]) -> Self {
        numbers.sort_unstable();
        let n = numbers.len();
        let at =
            |share: usize| numbers.get((n * share).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0);
        let mean = (n > 0).then(|| numbers.iter().sum::<u64>() as f64 / n as f64);
        Self { mean, median: at(50), p95: at(95), max: at(100) }
    }
}

/// What histories tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryShares {
    /// The study's question about apt.
    pub study: StudyApt,
    /// Practices, layer by layer (the corrected reading).
    pub layers: Practices,
    /// The same where a layer counts for all that came before it (as published).
    pub layers_cumulative: Practices,
    /// Images: configs with a history.
    pub images: u64,
    /// Of these, whose history has no USER. (What they run as is in the config, which a base can set, too.)
    pub images_without_user: u64,
    /// RUN layers of an image.
    pub run_layers_per_image: Spread,
}

impl Practices {
    /// Place of `run` in [`Practices::as_array`].
    pub(super) const RUN: usize = 1;

    /// All counts, in the order of the fields.
    pub(super) fn as_array(&self) -> [u64; 12] {
        [
            self.commands,
            self.run,
            self.apt_update,
            self.apt_update_alone,
            self.apt_install,
            self.apt_install_with_update,
            self.apt_install_lists_removed,
            self.apt_install_no_recommends,
            self.pip_install,
            self.pip_install_no_cache,
            self.add,
            self.add_of_url,
        ]
    }

    /// The reverse of [`Practices::as_array`].
    pub(super) fn from_array(counts: [u64; 12]) -> Self {
        Self {
            commands: counts[0],
            run: counts[1],
            apt_update: counts[2],
            apt_update_alone: counts[3],
            apt_install: counts[4],
            apt_install_with_update: counts[5],
            apt_install_lists_removed: counts[6],
            apt_install_no_recommends: counts[7],
            pip_install: counts[8],
            pip_install_no_cache: counts[9],
            add: counts[10],
            add_of_url: counts[11],
        }
    }
}

/// What FROM instructions name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bases {
    /// Images without tag, which means `latest`.
    pub untagged: u64,
    /// The tag `latest`.
    pub latest: u64,
    /// Another tag.
    pub tagged: u64,
    /// A digest.
    pub digest: u64,
    /// An image that depends on a build argument.
    pub variable: u64,
    /// `scratch`.
    pub scratch: u64,
    /// An earlier stage.
    pub stage: u64,
}

/// The study's counts of FROM in one of its groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromGroup {
    /// Distinct images.
    pub distinct: u64,
    /// All.
    pub total: u64,
    /// The thirty most frequent.
    pub top: Vec<(String, u64)>,
}

impl FromGroup {
    pub(super) fn of(counts: &[(String, u64)]) -> Self {
        Self {
            distinct: counts.len() as u64,
            total: counts.iter().map(|(_, n)| n).sum(),
            top: counts.iter().take(30).cloned().collect(),
        }
    }
}

/// What was odd in a source of Dockerfiles, with the first places.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Odd {
    /// Files that are no Dockerfiles by their name.
    pub other_files: u64,
    /// The first of them.
    pub other_examples: Vec<String>,
    /// Paths that an archive holds more than once; the last counts.
    pub repeated_files: u64,
    /// The first of them.
    pub repeated_examples: Vec<String>,
    /// Files that are not UTF-8. The study's script ends at such a file; here what is not UTF-8
    /// becomes U+FFFD.
    pub not_utf8: u64,
    /// The first of them.
    pub not_utf8_examples: Vec<String>,
    /// Files that could not be read: lost.
    pub unreadable: u64,
    /// The first of them.
    pub unreadable_examples: Vec<String>,
    /// Where and why an archive ended early: what follows is lost.
    pub broken_archive: Option<String>,
}

impl Odd {
    /// True if something could not be read.
    pub fn any_loss(&self) -> bool {
        self.unreadable > 0 || self.broken_archive.is_some()
    }
}

/// Projects of a list, and which of them have a Dockerfile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Projects of the list.
    pub projects: u64,
    /// Of these, with at least one Dockerfile.
    pub with_dockerfile: u64,
    /// Repositories with a Dockerfile that are not on the list.
    pub not_listed: u64,
}

/// What Dockerfiles tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DockerfileShares {
    /// Files.
    pub files: u64,
    /// Files of each group, the first component of the path.
    pub by_group: std::collections::BTreeMap<String, u64>,
    /// Repositories with at least one Dockerfile: `group/owner/repository`, under `orgs` one more.
    pub repositories: u64,
    /// Of these, in `rseng/`: projects of the Research Software Encyclopedia.
    pub encyclopedia_repositories: u64,
    /// Of a list of projects, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// Practices, instruction by instruction.
    pub instructions: Practices,
    /// RUN instructions of a file.
    pub run_per_file: Spread,
    /// Files without USER.
    pub without_user: u64,
    /// Files with more than one FROM.
    pub multi_stage: u64,
    /// Files that copy from an earlier stage.
    pub copy_from_stage: u64,
    /// What the FROM instructions name.
    pub bases: Bases,
    /// Files with a FROM without tag or of `latest`.
    pub unpinned_files: u64,
    /// Lines that contain `FROM`, as the study counts.
    pub from_lines: u64,
    /// The study's counts of FROM: `machine-learning` is what lies under `orgs/`, `rseng` all else.
    pub from: std::collections::BTreeMap<String, FromGroup>,
    /// What was odd.
    pub odd: Odd,
}
