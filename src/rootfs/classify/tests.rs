use super::*;
use crate::rootfs::bases::{NewBase, Provenance};
use proptest::prelude::*;

/// A small world: each base a set of numbered paths in a few directories of every kind.
fn path(i: u8) -> Vec<u8> {
    let place = ["usr/bin", "etc", "usr/share/doc", "var/log", "usr/lib/alpha-x"][usize::from(i) % 5];
    format!("{place}/{i}").into_bytes()
}

fn world(sets: &[std::collections::BTreeSet<u8>]) -> Bases {
    let base = |(i, set): (usize, &std::collections::BTreeSet<u8>)| NewBase {
        name: format!("{}:{i}", ["alpha", "beta", "gamma"][i % 3]),
        origin: "test".into(),
        created: String::new(),
        paths: set.iter().map(|p| path(*p)).chain([b".dockerenv".to_vec()]).collect(),
    };
    Bases::new(sets.iter().enumerate().map(base).collect(), vec![], Provenance::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The kernel against its definition: sets, clusters and logarithms, one by one.
    #[test]
    fn scores_are_those_of_the_definition(
        sets in prop::collection::vec(prop::collection::btree_set(0..120u8, 1..60), 1..20),
        images in prop::collection::vec(prop::collection::btree_set(0..120u8, 0..80), 1..6),
        artefacts in any::<bool>(),
    ) {
        let bases = world(&sets);
        let classifier = Classifier::new(&bases, Calibration::default());
        let clusters = Clusters::new(&bases.universe, &bases.listed());
        let mut tally = classifier.model.tally();
        for image in &images {
            let paths: Vec<_> = image.iter().map(|p| path(*p)).collect();
            let mut set = bases.set_of(paths.iter().map(Vec::as_slice));
            if artefacts {
                set = classifier.with_export_artefacts(&set);
            }
            let answer = classifier.score(&set, &mut tally);
            // As published.
            let shared: Vec<_> = bases.bases.iter().map(|b| (&b.paths & &set).len()).collect();
            let most = shared.iter().max().copied().unwrap();
            match &answer.published {
                None => prop_assert!(set.is_empty()),
                Some(p) => {
                    prop_assert_eq!(p.score.to_bits(), (most as f64 / set.len() as f64).to_bits());
                    prop_assert_eq!(p.base, shared.iter().position(|n| *n == most).unwrap());
                }
            }
            // Likeness.
            let marker = bases.universe.find(b".dockerenv").unwrap();
            let mut wanted = vec![0i64; bases.bases.len()];
            for (cluster, kind) in clusters.kinds.iter().enumerate() {
                let (m, a, gone, e) =
                    [(0.9, 0.45, 2.5, 0.04), (0.15, 0.25, 0.5, 0.35), (0.1, 0.1, 0.5, 0.35)][*kind as usize];
                let within = |s: &RoaringBitmap| -> RoaringBitmap {
                    s.iter().filter(|id| *id != marker && clusters.of[*id as usize] == cluster as u32).collect()
                };
                let ours = within(&set);
                let distances: Vec<f64> = bases.bases.iter().map(|b| {
                    let theirs = within(&b.paths);
                    let d = m * (&theirs - &ours).len() as f64 + a * (&ours - &theirs).len() as f64;
                    if ours.is_empty() { d.min(gone) } else { d }
                }).collect();
                let nearest = distances.iter().copied().fold(f64::INFINITY, f64::min);
                for (sum, d) in wanted.iter_mut().zip(distances) {
                    let d = (d - nearest).min(16.0);
                    *sum += (((1.0 - e) * (-d).exp() + e).ln() * NAT).round() as i64;
                }
            }
            for (lane, wanted) in wanted.iter().enumerate() {
                prop_assert!((tally.score[lane] - wanted).abs() <= clusters.kinds.len() as i64);
            }
            // A tally that was used before gives what a new one gives.
            let mut fresh = classifier.model.tally();
            prop_assert_eq!(classifier.score(&set, &mut fresh), answer);
            prop_assert_eq!(&fresh.score, &tally.score);
            prop_assert!(tally.score.iter().all(|s| *s <= 0));
        }
    }
}

fn numbers(range: std::ops::Range<u8>) -> std::collections::BTreeSet<u8> {
    range.collect()
}

#[test]
fn bases_left_out_leave_no_trace() {
    let bases = world(&[numbers(0..40), numbers(20..60), numbers(60..100)]);
    let without = bases.retain(|b| !b.name.starts_with("beta"));
    let some = Classifier::with(&bases, Calibration::default(), |b| b != 1);
    let fewer = Classifier::new(&without, Calibration::default());
    let paths: Vec<_> = (10..90).map(path).collect();
    let of = |bases: &Bases| bases.set_of(paths.iter().map(Vec::as_slice));
    let a = some.score(&of(&bases), &mut some.model.tally());
    let b = fewer.score(&of(&without), &mut fewer.model.tally());
    assert_eq!(a.published.map(|p| (p.score, p.paths)), b.published.map(|p| (p.score, p.paths)));
    assert_eq!(a.likeness.nearest, b.likeness.nearest);
}

#[test]
fn an_image_without_known_paths_is_not_answered() {
    let bases = world(&[numbers(0..40), numbers(20..60)]);
    let classifier = Classifier::new(&bases, Calibration::default());
    let mut tally = classifier.model.tally();
    let nothing = classifier.classify(&RoaringBitmap::new(), &mut tally);
    assert_eq!(nothing.published, None);
    assert_eq!(nothing.likeness.abstained, Some(Abstention::NoPaths));
    let exported = classifier.with_export_artefacts(&RoaringBitmap::new());
    let exported = classifier.classify(&exported, &mut tally);
    assert_eq!(exported.likeness.abstained, Some(Abstention::NoPaths));
    assert_eq!(exported.published.map(|p| (p.score, p.ties.len())), Some((1.0, 2)));
}

/// Sixty paths in each of these places.
fn sixty(places: &[&str]) -> Vec<Vec<u8>> {
    places.iter().flat_map(|p| (0..60).map(move |i| format!("{p}/{i}").into_bytes())).collect()
}

fn base(name: &str, paths: Vec<Vec<u8>>) -> NewBase {
    NewBase { name: name.into(), origin: "test".into(), created: String::new(), paths }
}

#[test]
fn a_keyring_names_nobody_whose_directories_have_holes() {
    let signed = |mut paths: Vec<Vec<u8>>, signs: &[&str]| {
        paths.extend(signs.iter().map(|sign| sign.as_bytes().to_vec()));
        paths
    };
    let keyring = ["usr/share/keyrings/debian-archive-keyring.gpg"];
    let debian = sixty(&["usr/bin", "usr/lib/one", "etc/a", "usr/libexec"]);
    let named = ["etc/dpkg/origins/ubuntu", "usr/share/keyrings/ubuntu-archive-keyring.gpg"];
    let ubuntu = sixty(&["usr/bin", "usr/lib/two", "etc/b", "usr/sbin"]);
    let bases = vec![
        base("debian:1", signed(debian.clone(), &keyring)),
        base("ubuntu:1", signed(ubuntu.clone(), &named)),
    ];
    let bases = Bases::new(bases, vec![], Provenance::default()).unwrap();
    let classifier = Classifier::new(&bases, Calibration::default());
    let contested = |paths: &[Vec<u8>], signs: &[&str], family: &str| {
        let set = bases.set_of(signed(paths.to_vec(), signs).iter().map(Vec::as_slice));
        let mut tally = classifier.model.tally();
        classifier.model.score(&set, &mut tally);
        let fit = fit(&classifier.model, &tally, &classifier.calibration.family).unwrap();
        assert!(bases.bases[classifier.model.base[fit.best]].name.starts_with(family));
        assert!(classifier.calibration.family(&fit) <= 0.9 || !fit.contested);
        fit.contested
    };
    // A tenth of every directory is missing, as in a relative; or a whole directory, as where it was slimmed.
    let holes = |paths: &[Vec<u8>]| -> Vec<Vec<u8>> {
        paths.iter().enumerate().filter(|(i, _)| i % 10 != 3).map(|(_, path)| path.clone()).collect()
    };
    let slim: Vec<_> = debian.iter().filter(|path| !path.starts_with(b"usr/libexec")).cloned().collect();
    assert!(!contested(&debian, &keyring, "debian") && !contested(&slim, &keyring, "debian"));
    assert!(contested(&holes(&debian), &keyring, "debian") && contested(&holes(&debian), &[], "debian"));
    // A sign that only the distribution itself has is another matter.
    assert!(
        !contested(&holes(&ubuntu), &named, "ubuntu") && contested(&holes(&ubuntu), &named[1..], "ubuntu")
    );
}

#[test]
fn confidence_is_capped_where_two_bases_are_there_as_wholly() {
    // Far more paths than `world` has, so that one base alone is beyond doubt.
    let bases = vec![
        base("alpha:1", sixty(&["usr/bin", "usr/lib/alpha", "etc/a", "usr/libexec"])),
        base("beta:1", sixty(&["usr/bin", "usr/lib/beta", "etc/b", "usr/sbin"])),
    ];
    let bases = Bases::new(bases, vec![], Provenance::default()).unwrap();
    let classifier = Classifier::new(&bases, Calibration::default());
    let confidence =
        |set: &RoaringBitmap| classifier.score(set, &mut classifier.model.tally()).likeness.confidence;
    let [alpha, beta] = [0, 1].map(|b: usize| bases.bases[b].paths.clone());
    assert!(confidence(&alpha) > 0.95, "{}", confidence(&alpha));
    let both = &alpha | &beta;
    assert!(confidence(&both) <= 0.9, "{}", confidence(&both));
    // A third of the other one on it does not contest it.
    let some = &alpha | &beta.iter().filter(|id| id % 3 == 0).collect::<RoaringBitmap>();
    let fit = |set: &RoaringBitmap| {
        let mut tally = classifier.model.tally();
        classifier.model.score(set, &mut tally);
        fit(&classifier.model, &tally, &classifier.calibration.family).unwrap()
    };
    assert!(!fit(&some).contested && !fit(&alpha).contested && fit(&both).contested);
    // Both slimmed alike are as doubtful as both whole.
    let slimmed = both.iter().filter(|id| id % 4 != 0).collect::<RoaringBitmap>();
    assert!(fit(&slimmed).contested);
}
