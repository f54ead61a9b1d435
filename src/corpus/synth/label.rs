//! The label that marks a directory or archive of corpus files as synthetic.

use super::Recipe;

/// Name of the label file, beside `registry/`.
pub const LABEL_FILE: &str = "SYNTHETIC.json";

/// The label: JSON with these fields, in this order.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Label {
    /// Always true; says that no image of the corpus exists.
    pub synthetic: bool,
    /// Seed of the generator.
    pub seed: u64,
    /// Version of the program that generated it.
    #[serde(default)]
    pub program_version: String,
    /// Images (tags with a manifest that the study keeps), without those of the oddities.
    #[serde(default)]
    pub images: u64,
    /// Repositories, without those of the oddities.
    #[serde(default)]
    pub repositories: u64,
    /// Distinct layer digests of these images.
    #[serde(default)]
    pub digests: u64,
    /// Layers of these images.
    #[serde(default)]
    pub rows: u64,
    /// True if oddities were added.
    #[serde(default)]
    pub oddities: bool,
    /// True if files that cannot be read whole were added.
    #[serde(default)]
    pub losses: bool,
}

impl Label {
    pub(super) fn of(recipe: &Recipe) -> Self {
        Self {
            synthetic: true,
            seed: recipe.seed,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            images: recipe.images,
            repositories: recipe.repositories,
            digests: recipe.digests,
            rows: recipe.rows,
            oddities: recipe.oddities,
            losses: recipe.losses,
        }
    }

    /// Reads a label file; `None` if it is no label.
    pub(in crate::corpus) fn read(content: &[u8]) -> Option<Self> {
        serde_json::from_slice(content).ok().filter(|label: &Self| label.synthetic)
    }
}
