//! What a synthetic corpus promises.

use super::*;
use crate::corpus::{History, import};
use crate::strings::NONE;
use crate::world::World;
use proptest::prelude::*;
use std::collections::HashMap;

fn on(threads: usize, recipe: &Recipe) -> Corpus {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| Population::new(recipe).unwrap().corpus(&|_, _| ()))
}

/// The counts of the recipe, and that nothing is odd that should not be.
fn check(recipe: &Recipe, corpus: &Corpus) {
    assert_eq!(corpus.check(), Ok(()));
    let images = corpus.study_images();
    assert_eq!(images.len() as u64, recipe.images);
    assert_eq!(corpus.repositories.len() as u64, recipe.repositories);
    assert_eq!(corpus.digests.len() as u64, recipe.digests);
    assert_eq!(corpus.layers.digest.len() as u64, recipe.rows);
    assert_eq!(corpus.provenance.synthetic_seed, Some(recipe.seed));
    let natural = [
        Oddity::YearBefore2010,
        Oddity::RepeatedDigest,
        Oddity::SizeOver32Bits,
        Oddity::RepositoryNameDebris,
    ];
    for kind in Oddity::ALL.into_iter().filter(|kind| !natural.contains(kind)) {
        assert_eq!(corpus.oddities.count(kind), 0, "{kind:?}");
    }
    assert_eq!(corpus.oddities.count(Oddity::RepositoryNameDebris), 0);
    let mut tags = vec![0; corpus.repositories.len()];
    corpus.manifests.repository.iter().for_each(|r| tags[*r as usize] += 1);
    assert!(tags.iter().all(|n| (1..=500).contains(n)));
}

/// Recipes of any proportions, also absurd ones.
fn recipes() -> impl Strategy<Value = Recipe> {
    let numbers = (1u64..400, 0.0..1.0, 1.0..20.0, 0.0..1.0, any::<u64>());
    numbers.prop_map(|(images, some, layers, distinct, seed)| {
        let rows = (images as f64 * layers) as u64;
        Recipe {
            images,
            repositories: images.div_ceil(500).max((images as f64 * some) as u64),
            digests: ((rows as f64 * distinct * distinct) as u64).max(1),
            rows,
            seed,
            oddities: false,
            losses: false,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn numbers_are_met_on_any_number_of_threads(recipe in recipes()) {
        let corpus = on(1, &recipe);
        check(&recipe, &corpus);
        prop_assert_eq!(&on(3, &recipe), &corpus);
    }
}

#[test]
fn extremes_are_possible() {
    let numbers = [
        (1, 1, 1, 1),
        (500, 1, 500, 500),
        (500, 1, 1, 500),
        (2, 2, 1, 1_000),
        (300, 300, 2, 3_000),
        (100, 1, 9, 5_000),
        (10, 2, 4_000, 4_000),
    ];
    for (images, repositories, digests, rows) in numbers {
        let recipe = Recipe { images, repositories, digests, rows, ..Recipe::default() };
        check(&recipe, &on(2, &recipe));
    }
}

#[test]
fn written_files_are_imported_as_the_same_corpus() {
    let recipe = Recipe { oddities: true, losses: true, seed: 5, ..Recipe::of_images(300) };
    let population = Population::new(&recipe).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let crawl = dir.path().join("crawl");
    population.write(&crawl, &|_, _| ()).unwrap();
    let mut imported = import(&crawl, &World::solo(), &|_, _| ()).unwrap().unwrap().into_corpus();
    let corpus = population.corpus(&|_, _| ());
    imported.provenance.source = corpus.provenance.source.clone();
    assert!(imported == corpus);
    assert!(!corpus.provenance.complete);
    assert_eq!(corpus.provenance.synthetic_seed, Some(5));
    let error = population.write(&crawl, &|_, _| ()).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary directory is left");
}

#[test]
fn seeds_matter() {
    let recipe = Recipe::of_images(50);
    let other = Recipe { seed: 2, ..recipe };
    assert_ne!(on(2, &recipe).id(), on(2, &other).id());
}

/// The promises that the counts do not show: histories, dates, overlap.
#[test]
fn images_are_as_images_are() {
    let recipe = Recipe::of_images(4_000);
    let corpus = on(2, &recipe);
    check(&recipe, &corpus);
    let mut commands = HashMap::new();
    let (mut neighbours, mut strangers) = (0.0, 0.0);
    let mut before: Option<(u32, i64, Vec<u32>)> = None;
    for m in 0..corpus.manifest_count() {
        let digests = corpus.layers.digest[corpus.layers_of(m)].to_vec();
        for (k, digest) in digests.iter().enumerate() {
            let step = corpus.history_of_layer(m, k).expect("history and layers align");
            let command = corpus.history.created_by[step];
            assert_ne!(command, NONE);
            if corpus.digest_empty[*digest as usize] == 0 {
                assert_eq!(*commands.entry(*digest).or_insert(command), command);
            }
        }
        let steps = corpus.history_of(corpus.config_of(m).unwrap());
        let times = &corpus.history.created[steps];
        assert!(times.is_sorted() && !times.contains(&History::NO_TIME));
        let (repository, time) = (corpus.manifests.repository[m], times[times.len() - 1]);
        let mut set = digests;
        set.retain(|d| corpus.digest_empty[*d as usize] == 0);
        set.sort_unstable();
        let most = set.len();
        set.dedup();
        assert_eq!(set.len(), most, "only empty layers are repeated in an image");
        if let Some((r, t, other)) = &before {
            let shared = set.iter().filter(|d| other.contains(d)).count() as f64;
            let score = shared / (set.len() + other.len()) as f64 * 2.0;
            if *r == repository {
                assert!(*t <= time, "tags follow each other in time");
                neighbours += score;
            } else {
                strangers += score;
            }
        }
        before = Some((repository, time, set));
    }
    let repositories = corpus.repositories.len() as f64;
    assert!(neighbours / (recipe.images as f64 - repositories) > 0.5, "{neighbours}");
    assert!(strangers / repositories < 0.2, "{strangers}");
}

#[test]
fn the_default_is_the_published_corpus() {
    let recipe = Recipe::default();
    assert_eq!(Recipe::of_images(recipe.images), recipe);
    let population = Population::new(&recipe).unwrap();
    let placement = &population.placement;
    let mut rows = vec![0u64; population.layers.len()];
    placement.slots.iter().for_each(|layer| rows[*layer as usize] += 1);
    let at_least = |n: u64| rows.iter().filter(|r| **r >= n).count();
    assert_eq!((placement.slots.len(), rows.len()), (2_872_188, 528_449));
    assert_eq!(rows.iter().filter(|r| **r == 1).count(), 312_095);
    assert_eq!([2, 3, 51, 101].map(at_least), [216_354, 136_054, 9_255, 3_333]);
    assert_eq!((rows[0], rows[1]), (67_897, 15_186));
    assert!(rows[2..].iter().all(|n| *n < 15_186));
    assert!([501, 1_001, 3_001].map(at_least).is_sorted_by(|a, b| a > b));

    assert_eq!(population.ranges.len(), 1_521);
    assert!(population.ranges.iter().all(|r| (1..=500).contains(&r.len())));
    let images = placement.same_as_before.len();
    assert_eq!(images, 256_970);
    let mut heights: Vec<usize> = (0..images).map(|i| placement.layers_of(i).len()).collect();
    heights.sort_unstable();
    assert!((8..=9).contains(&heights[images / 2]), "{}", heights[images / 2]);
    let mut sizes: Vec<u64> =
        placement.slots.iter().map(|layer| population.layers[*layer as usize].size).collect();
    sizes.sort_unstable();
    let median = sizes[sizes.len() / 2];
    assert!((200_000..1_000_000).contains(&median), "{median}");
    assert!(sizes[sizes.len() - 1] > u64::from(u32::MAX));
    for image in 0..images {
        let mut solid: Vec<u32> =
            placement.layers_of(image).iter().copied().filter(|layer| *layer > 1).collect();
        solid.sort_unstable();
        assert!(solid.is_sorted_by(|a, b| a < b), "only empty layers are repeated in an image");
    }
}

#[test]
fn impossible_numbers_are_refused() {
    let good = Recipe::of_images(100);
    for bad in [
        Recipe { images: 0, ..good },
        Recipe { repositories: 0, ..good },
        Recipe { digests: 0, ..good },
        Recipe { rows: 99, ..good },
        Recipe { digests: good.rows + 1, ..good },
        Recipe { repositories: 101, ..good },
        Recipe { images: 501, repositories: 1, ..good },
        Recipe { rows: u64::MAX, ..good },
    ] {
        let error = Population::new(&bad).err().expect("refused");
        assert!(matches!(error, Error::Recipe(_)), "{error}");
    }
    good.check().unwrap();
}
