//! What is odd in a source: kinds, counts, and the first few examples of each.

/// One kind of oddity. None of them stops an import.
///
/// `repr(u8)` values are stored in corpus files: append, never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // `label` says what each one is
pub enum Oddity {
    ManifestList = 0,
    OciIndex = 1,
    SchemaOne = 2,
    ImageWithoutMediaType = 3,
    ManifestWithoutLayers = 4,
    ManifestWithoutConfig = 5,
    ConfigWithoutManifest = 6,
    ConfigWithoutHistory = 7,
    HistoryWithoutCommand = 8,
    RootfsMisspelt = 9,
    YearOne = 10,
    YearBefore2010 = 11,
    DateWithOffset = 12,
    DateMissing = 13,
    DateUnreadable = 14,
    ForeignLayer = 15,
    SignatureLayer = 16,
    RepositoryNameDebris = 17,
    RepositoryAlias = 18,
    RepeatedDigest = 19,
    HistoryMisaligned = 20,
    SizeOver32Bits = 21,
    SizeInvalid = 22,
    LayerWithoutDigest = 23,
    WrongType = 24,
    TagsDiffer = 25,
    RepeatedKey = 26,
    BadFile = 27,
    InvalidUtf8 = 28,
    EmptyFile = 29,
    RepeatedFile = 30,
    OtherFile = 31,
    BrokenArchive = 32,
    UnknownPlatform = 33,
    ZeroLayers = 34,
    NoTopLevelObject = 35,
}

impl Oddity {
    /// All kinds, in the order of their stored values.
    pub const ALL: [Self; 36] = [
        Self::ManifestList,
        Self::OciIndex,
        Self::SchemaOne,
        Self::ImageWithoutMediaType,
        Self::ManifestWithoutLayers,
        Self::ManifestWithoutConfig,
        Self::ConfigWithoutManifest,
        Self::ConfigWithoutHistory,
        Self::HistoryWithoutCommand,
        Self::RootfsMisspelt,
        Self::YearOne,
        Self::YearBefore2010,
        Self::DateWithOffset,
        Self::DateMissing,
        Self::DateUnreadable,
        Self::ForeignLayer,
        Self::SignatureLayer,
        Self::RepositoryNameDebris,
        Self::RepositoryAlias,
        Self::RepeatedDigest,
        Self::HistoryMisaligned,
        Self::SizeOver32Bits,
        Self::SizeInvalid,
        Self::LayerWithoutDigest,
        Self::WrongType,
        Self::TagsDiffer,
        Self::RepeatedKey,
        Self::BadFile,
        Self::InvalidUtf8,
        Self::EmptyFile,
        Self::RepeatedFile,
        Self::OtherFile,
        Self::BrokenArchive,
        Self::UnknownPlatform,
        Self::ZeroLayers,
        Self::NoTopLevelObject,
    ];

    /// What it is and what became of it, in a few words for the table.
    pub fn label(self) -> &'static str {
        match self {
            Self::ManifestList => "docker manifest list (kept as an index, no layers)",
            Self::OciIndex => "OCI index (kept as an index, no layers)",
            Self::SchemaOne => "schema 1 manifest (no sizes; kept without layers)",
            Self::ImageWithoutMediaType => "image manifest without mediaType (the study skips it)",
            Self::ManifestWithoutLayers => "manifest of another kind without layers",
            Self::ManifestWithoutConfig => "manifest with layers but no config of its tag",
            Self::ConfigWithoutManifest => "config without a manifest of its tag",
            Self::ConfigWithoutHistory => "config without history",
            Self::HistoryWithoutCommand => "history entry without created_by",
            Self::RootfsMisspelt => "rootfS for rootfs (read as rootfs)",
            Self::YearOne => "config created in year 1 (left out of dated tables)",
            Self::YearBefore2010 => "config created before 2010 (left out of year tables)",
            Self::DateWithOffset => "config date with an offset from UTC",
            Self::DateMissing => "config without created",
            Self::DateUnreadable => "config date that is no date",
            Self::ForeignLayer => "foreign layer (distributed elsewhere, urls)",
            Self::SignatureLayer => "signature or attestation layer (no file system)",
            Self::RepositoryNameDebris => "repository name that is Dockerfile debris",
            Self::RepositoryAlias => "repository under several names",
            Self::RepeatedDigest => "manifest that repeats a layer digest",
            Self::HistoryMisaligned => "history does not align with the layers",
            Self::SizeOver32Bits => "layer size over 32 bits (kept exactly)",
            Self::SizeInvalid => "layer size missing, negative or absurd (counted as 0)",
            Self::LayerWithoutDigest => "layer without a digest (not kept)",
            Self::WrongType => "value of a wrong JSON type (read as missing)",
            Self::TagsDiffer => "tags that list something else than manifests",
            Self::RepeatedKey => "object key given twice (the last one counts)",
            Self::BadFile => "file that is no JSON (not read)",
            Self::InvalidUtf8 => "file with invalid UTF-8 (bad bytes replaced)",
            Self::EmptyFile => "empty file (not read)",
            Self::RepeatedFile => "file given twice in the archive (the last one counts)",
            Self::OtherFile => "file of another name (not read)",
            Self::BrokenArchive => "archive cut or corrupt (read up to there)",
            Self::UnknownPlatform => "index entry of platform unknown/unknown (attestation)",
            Self::ZeroLayers => "manifest with an empty layers list",
            Self::NoTopLevelObject => "file without manifests and configs objects",
        }
    }

    /// True if something of the source was lost by it, so that the corpus is not complete.
    pub fn is_loss(self) -> bool {
        matches!(
            self,
            Self::BadFile
                | Self::EmptyFile
                | Self::BrokenArchive
                | Self::InvalidUtf8
                | Self::LayerWithoutDigest
        )
    }

    /// The kind with this stored value.
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }
}

/// Where an oddity was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// What kind it is.
    pub kind: Oddity,
    /// The file, relative to the source.
    pub file: String,
    /// The tag, empty where it concerns the file as a whole.
    pub tag: String,
    /// The field and what was found there.
    pub field: String,
}

/// Counts of each kind and the first [`Oddities::EXAMPLES`] of each, in corpus order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oddities {
    counts: Vec<u64>,
    examples: Vec<Example>,
}

impl Default for Oddities {
    fn default() -> Self {
        Self { counts: vec![0; Oddity::ALL.len()], examples: Vec::new() }
    }
}

impl Oddities {
    /// How many examples of a kind are kept.
    pub const EXAMPLES: usize = 10;

    /// Counts one more; `example` is only asked for while examples of the kind are still wanted.
    pub fn note(&mut self, kind: Oddity, example: impl FnOnce() -> Example) {
        let seen = &mut self.counts[kind as usize];
        *seen += 1;
        if *seen <= Self::EXAMPLES as u64 {
            self.examples.push(example());
        }
    }

    /// Adds the oddities of the next files in corpus order.
    pub fn extend(&mut self, next: &Self) {
        for example in &next.examples {
            let have = self.examples.iter().filter(|e| e.kind == example.kind).count();
            if have < Self::EXAMPLES {
                self.examples.push(example.clone());
            }
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&next.counts) {
            *mine += theirs;
        }
    }

    /// Puts counts and examples back together, as a corpus file holds them.
    pub fn from_parts(counts: Vec<u64>, examples: Vec<Example>) -> Option<Self> {
        // A file of an older program knows fewer kinds.
        let mut counts = counts;
        if counts.len() > Oddity::ALL.len() {
            return None;
        }
        counts.resize(Oddity::ALL.len(), 0);
        Some(Self { counts, examples })
    }

    /// How often a kind was seen.
    pub fn count(&self, kind: Oddity) -> u64 {
        self.counts[kind as usize]
    }

    /// Counts in the order of [`Oddity::ALL`].
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The kept examples.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// True if a part of the source could not be read.
    pub fn any_loss(&self) -> bool {
        Oddity::ALL.into_iter().any(|kind| kind.is_loss() && self.count(kind) > 0)
    }
}
