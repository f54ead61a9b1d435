//! `stratigraph cosine` as a command: ranks, tiles, kernels, stops, refusals; numbers against h5py
//! and NumPy.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{ranks, results_in, run, stratigraph, succeed, wait_for};

const N: usize = 900;
const DIMS: usize = 37;

/// Writes N unit rows, some of them equal or nearly so, as a NumPy file.
fn vectors(path: &Path) {
    let mut state = 7u64;
    let mut real = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
    };
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for i in 0..N {
        let mut row: Vec<f64> = (0..DIMS).map(|_| real()).collect();
        if i % 3 == 1 {
            let scale = if i % 2 == 0 { 0.0 } else { 0.02 };
            row = rows[i / 2].iter().zip(&row).map(|(a, b)| f64::from(*a) + scale * b).collect();
        }
        let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        rows.push(row.iter().map(|v| (v / length) as f32).collect());
    }
    write(path, N, &rows.concat());
}

fn write(path: &Path, rows: usize, values: &[f32]) {
    let shape = format!("({rows}, {})", values.len().checked_div(rows).unwrap_or(2));
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    header.push_str(&" ".repeat(117 - header.len()));
    header.push('\n');
    let mut bytes = [b"\x93NUMPY\x01\0", (header.len() as u16).to_le_bytes().as_slice()].concat();
    bytes.extend_from_slice(header.as_bytes());
    values.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
    std::fs::write(path, bytes).expect("a file");
}

const OPTIONS: [&str; 5] = ["--top-k", "5", "--min", "0.5", "--as-published"];

fn command(ranks_: usize, file: &Path, output: &Path) -> Command {
    let mut command = if ranks_ == 1 { stratigraph(2) } else { ranks(ranks_, 1) };
    command.arg("cosine").arg(file).arg("-o").arg(output).args(OPTIONS);
    command
}

#[test]
fn the_same_bits_for_any_ranks_tiles_and_kernels() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("v.npy");
    vectors(&file);
    let mut expected = None;
    for (n, rows, kernel) in [
        (1, "192", ""),
        (1, "700", "portable"),
        (2, "100", "avx2"),
        (3, "64", "avx2-int16"),
        (7, "33", "portable"),
    ] {
        let output = dir.path().join(format!("{n}-{rows}"));
        succeed(command(n, &file, &output).args(["--tile-rows", rows]).env("STRATIGRAPH_KERNEL", kernel));
        let found = results_in(&output);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["cosine.h5", "cosine.json"]);
        assert!(
            found == *expected.get_or_insert_with(|| found.clone()),
            "{n} ranks, tiles of {rows}, {kernel}"
        );
    }
}

/// Starts a run and stops it as soon as a tile is recorded.
fn stop_after_a_tile(slow: &mut Command, output: &Path) {
    slow.env("STRATIGRAPH_TILE_DELAY_MS", "100");
    let mut child = slow.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let recorded = || {
        let entries = std::fs::read_dir(output.join("journal-cosine")).into_iter().flatten().flatten();
        entries.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum::<u64>()
    };
    wait_for("a finished tile", || recorded() >= 500);
    // `timeout` hands the signal on to the program.
    // SAFETY: kill(2) reads two integers; the process is one that this test started.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let status = child.wait().expect("a child");
    // `timeout` itself says 124 for a TERM that it passed on.
    assert!(matches!(status.code(), Some(75 | 124)), "{status:?}");
}

#[test]
fn a_stopped_run_goes_on_on_other_ranks() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("v.npy");
    vectors(&file);
    let alone = dir.path().join("alone");
    succeed(command(1, &file, &alone).args(["--tile-rows", "60"]));
    let output = dir.path().join("stopped");
    let mut slow = command(1, &file, &output);
    slow.args(["--tile-rows", "60"]);
    stop_after_a_tile(&mut slow, &output);
    assert!(!output.join("cosine.json").exists());
    let text = succeed(command(3, &file, &output).args(["--tile-rows", "60"]));
    assert!(!text.contains(" 0 found in the journal"), "{text}");
    assert!(results_in(&output) == results_in(&alone));
    let again = succeed(command(2, &file, &output).args(["--tile-rows", "50"]));
    assert!(again.contains("nothing to do"), "{again}");
}

#[test]
fn bad_input_is_refused_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("v.npy");
    let refused = |values: &[f32], more: &[&str]| {
        write(&file, 2, values);
        let output = dir.path().join("out");
        let (code, _, err) = run(stratigraph(1).arg("cosine").arg(&file).arg("-o").arg(&output).args(more));
        assert_eq!(err.lines().count(), 1, "{err}");
        (code, err)
    };
    for (values, more, reason) in [
        ([1.0, 0.0, f32::NAN, 0.0], [].as_slice(), "row 1: column 0 is NaN"),
        ([1.0, 0.0, 0.0, f32::INFINITY], &["--normalize"], "row 1: column 1 is inf"),
        ([1.0, 0.0, 3.0, 4.0], &[], "row 1: has length 5.000000, not 1; give --normalize"),
        ([1.0, 0.0, 0.0, 1.0], &["--edges=1,0"], "ascending"),
        ([1.0, 0.0, 0.0, 1.0], &["--edges", "-0.5,-1"], "ascending"),
        ([1.0, 0.0, 0.0, 1.0], &["--min", "nan"], "a threshold is a number"),
        ([1.0, 0.0, 0.0, 1.0], &["--min", "1.5"], "a threshold is a number from -1 to 1"),
    ] {
        let (code, err) = refused(&values, more);
        assert!(code == 4 && err.contains(reason), "{code}: {err}");
    }
}

/// Vectors that are none, one, or all the same have results, too, and no tiles.
#[test]
fn few_vectors_have_results() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("v.npy");
    for (n, pairs) in [(0usize, 0u64), (1, 0), (3, 3)] {
        write(&file, n, &[0.6f32, 0.8].repeat(n));
        for more in [[].as_slice(), &["--top-k", "3", "--min", "0.5"], &["--matrix", "f32"]] {
            let output = dir.path().join(format!("{n}-{}", more.len()));
            let mut command = stratigraph(1);
            succeed(command.arg("cosine").arg(&file).arg("-o").arg(&output).args(more).arg("--plan"));
            let mut command = stratigraph(1);
            succeed(command.arg("cosine").arg(&file).arg("-o").arg(&output).args(more));
            let text = std::fs::read_to_string(output.join("cosine.json")).expect("a summary");
            let summary: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            // The first counts distinct vectors.
            let last = summary["measures"].as_array().and_then(|m| m.last()).expect("a measure");
            assert_eq!(last["pairs"], pairs, "{n} {more:?}: {text}");
        }
    }
}

/// A single score does not deviate, and long vectors, if few, need little memory.
#[test]
fn few_vectors_are_summed_pair_by_pair() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("v.npy");
    let summary = |name: &str, memory: &str| -> serde_json::Value {
        let output = dir.path().join(name);
        let mut command = stratigraph(1);
        succeed(command.arg("cosine").arg(&file).args(["--memory", memory, "-o"]).arg(&output));
        let text = std::fs::read(output.join("cosine.json")).expect("a summary");
        serde_json::from_slice(&text).expect("JSON")
    };
    write(&file, 2, &[0.6f32, 0.8, 0.8, 0.6]);
    let pair = summary("pair", "1G")["measures"][1].clone();
    let score = f64::from(0.6f32) * f64::from(0.8f32) * 2.0;
    assert_eq!((pair["pairs"].as_u64(), pair["std"].as_f64()), (Some(1), Some(0.0)));
    assert!((pair["mean"].as_f64().expect("a number") - score).abs() < 1e-12, "{pair}");
    // Each row has a value in common with the next one alone.
    let (n, dims) = (20, 30_000);
    let half = 0.5f32.sqrt();
    let mut values = vec![0.0; n * dims];
    for (i, row) in values.chunks_exact_mut(dims).enumerate() {
        (row[i * 1000], row[(i + 1) * 1000]) = (half, half);
    }
    write(&file, n, &values);
    let long = summary("long", "256M")["measures"][0].clone();
    let mean = 19.0 * f64::from(half) * f64::from(half) / 190.0;
    assert!((long["mean"].as_f64().expect("a number") - mean).abs() < 1e-12, "{long}");
}

/// A shard that went away is never taken for one that came after it.
#[test]
fn a_lost_part_of_the_matrix_is_missed() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("v.npy");
    vectors(&file);
    let output = dir.path().join("out");
    let matrix = ["--matrix", "f32", "--tile-rows", "60"];
    let mut slow = command(1, &file, &output);
    slow.args(matrix);
    stop_after_a_tile(&mut slow, &output);
    std::fs::remove_dir_all(output.join("cosine-matrix")).expect("shards");
    let (code, _, err) = run(command(1, &file, &output).args(matrix));
    assert!(code != 0 && err.contains("rank-0000.000.h5: is missing"), "{code}: {err}");
    std::fs::remove_dir_all(output.join("journal-cosine")).expect("a journal");
    succeed(command(1, &file, &output).args(matrix));
    // Of results that are done, too; what others have put beside the shards stays.
    for spoilt in ["cosine-matrix", "cosine.h5"] {
        let done = succeed(command(1, &file, &output).args(matrix));
        assert!(done.contains("done before"), "{done}");
        std::fs::write(output.join("cosine-matrix/notes.txt"), "mine").expect("a file");
        match spoilt {
            "cosine.h5" => std::fs::write(output.join(spoilt), "").expect("a file"),
            _ => std::fs::remove_dir_all(output.join(spoilt)).expect("shards"),
        }
        let again = succeed(command(1, &file, &output).args(matrix));
        assert!(!again.contains("done before"), "{again}");
    }
    // Nor is a file written over that is read.
    let name = output.join("cosine-matrix.h5");
    let (code, _, err) = run(command(1, &name, &output).args(matrix).arg("--overwrite"));
    assert!(code == 4 && err.contains("is what is read"), "{code}: {err}");
}

/// Counts, mean and neighbours against NumPy in float64, read back through h5py.
#[test]
fn python_finds_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("v.npy");
    vectors(&file);
    let output = dir.path().join("out");
    succeed(&mut command(2, &file, &output));
    let script: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cosine_check.py");
    let (code, out, err) =
        run(Command::new("/usr/bin/python3").arg(script).arg(&file).arg(output.join("cosine")));
    if code == 77 {
        println!("skipped: no h5py ({out})");
        return;
    }
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn the_plan_says_what_is_needed_and_computes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("v.npy");
    vectors(&file);
    let output = dir.path().join("out");
    let text = succeed(command(1, &file, &output).args(["--plan", "--plan-ranks", "64"]));
    for part in ["tiles on 64 rank(s)", "needs: vectors", "of disk", "pairs to list", "expected: "] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!output.exists(), "a plan writes nothing");
}

/// The whole matrix and some rows of it, on any ranks, after a stop, in all three types.
#[test]
fn the_matrix_is_that_of_float64() {
    use stratigraph::h5::Reader;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("v.npy");
    vectors(&file);
    let bytes = std::fs::read(&file).expect("the vectors");
    let values: Vec<f32> =
        bytes[128..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let list = dir.path().join("rows.txt");
    std::fs::write(&list, "699\n3\n\n3\n120\n").expect("a list");
    let matrix = |command: &mut Command, output: &Path, cell: &str| {
        succeed(command.args(["--matrix", cell]));
        let own = Reader::open(&output.join("cosine.h5"), "cosine", 1).expect("results");
        let representative: Vec<u32> = own.array("groups/representative").expect("rows");
        let file = Reader::open(&output.join("cosine-matrix.h5"), "cosine-matrix", 1).expect("a matrix");
        let rows: Vec<u32> = file.array("rows").expect("rows");
        assert_eq!(file.shape("scores").expect("a shape"), [rows.len(), representative.len()]);
        let row = |i: u32| {
            let at = representative[i as usize] as usize * DIMS;
            &values[at..at + DIMS]
        };
        let mut expected = Vec::new();
        for i in &rows {
            for j in 0..representative.len() as u32 {
                let terms = row(*i).iter().zip(row(j));
                expected.push(terms.fold(0.0, |sum, (x, y)| sum + f64::from(*x) * f64::from(*y)));
            }
        }
        (file, expected)
    };
    let output = |name: &str| dir.path().join(name);
    let (file_f32, expected) = matrix(&mut command(2, &file, &output("a")), &output("a"), "f32");
    let found: Vec<f32> = file_f32.array("scores").expect("scores");
    assert!(found.iter().zip(&expected).all(|(f, e)| f.to_bits() == (*e as f32).to_bits()));

    let mut some = command(3, &file, &output("b"));
    some.args(["--tile-rows", "50", "--rows"]).arg(&list);
    let (file_u8, expected) = matrix(&mut some, &output("b"), "u8");
    let found: Vec<u8> = file_u8.array("scores").expect("scores");
    assert!(found.len() / 3 > 400 && found.len() == expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(f64::from(*found), 128.0 + (127.0 * expected.clamp(-1.0, 1.0)).round());
    }

    // The same read by h5py, through the master and its shards.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/matrix_check.py");
    for (name, cell) in [("a", "f32"), ("b", "u8")] {
        let mut python = Command::new("/usr/bin/python3");
        python.arg(&script).args([&file, &output(name)]).arg(cell);
        let (code, out, err) = run(&mut python);
        if code == 77 {
            println!("skipped: no h5py ({out})");
            continue;
        }
        assert_eq!((code, out.trim()), (0, "the same"), "{err}");
    }

    // Stopped in the middle, and on with other ranks.
    let stopped = output("c");
    let mut slow = command(1, &file, &stopped);
    slow.args(["--matrix", "f32", "--tile-rows", "60"]).env("STRATIGRAPH_TILE_DELAY_MS", "100");
    let mut child = slow.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    wait_for("a shard", || stopped.join("cosine-matrix/rank-0000.000.h5").exists());
    std::thread::sleep(Duration::from_millis(300));
    // SAFETY: kill(2) reads two integers; the process is one that this test started.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    child.wait().expect("a child");
    let mut again = command(3, &file, &stopped);
    again.args(["--tile-rows", "60"]);
    let (file_again, _) = matrix(&mut again, &stopped, "f32");
    let (found, before): (Vec<f32>, Vec<f32>) =
        (file_again.array("scores").expect("scores"), file_f32.array("scores").expect("scores"));
    assert!(found == before);
}

#[test]
fn rows_of_the_matrix_that_are_not_there_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, list) = (dir.path().join("v.npy"), dir.path().join("rows.txt"));
    write(&file, 2, &[1.0, 0.0, 0.0, 1.0]);
    for (text, reason) in [
        ("0\n2\n", "rows.txt: line 2: there are 2 vectors, numbered from 0"),
        ("0\nx\n", "line 2: not the number of a vector"),
        ("\n", "lists no vector"),
    ] {
        std::fs::write(&list, text).expect("a list");
        let mut command = stratigraph(1);
        command.arg("cosine").arg(&file).arg("-o").arg(dir.path().join("out"));
        let (code, _, err) = run(command.args(["--matrix", "f16", "--rows"]).arg(&list));
        assert!(code == 4 && err.contains(reason), "{code}: {err}");
    }
}

/// Histograms that do not follow from the counts beside them are not told; those of equal and of zero vectors do.
#[test]
fn a_changed_summary_is_noticed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, output) = (dir.path().join("v.npy"), dir.path().join("out"));
    write(&file, 6, &[1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.6, 0.8]);
    succeed(stratigraph(1).arg("cosine").arg(&file).arg("-o").arg(&output));
    succeed(stratigraph(1).arg("reduce").arg(&output));
    let json = output.join("cosine.json");
    let mut summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).expect("a summary")).expect("JSON");
    let counts = summary["measures"][1]["histograms"][0]["counts"].as_array_mut().expect("counts");
    let full = counts.iter().position(|n| n.as_u64() > Some(0)).expect("a pair");
    counts[full] = (counts[full].as_u64().unwrap() - 1).into();
    counts[0] = (counts[0].as_u64().unwrap() + 1).into();
    std::fs::write(&json, summary.to_string()).expect("a file");
    let (code, _, err) = run(stratigraph(1).arg("reduce").arg(&output));
    assert!(code == 4 && err.contains("another histogram of documents"), "{code}: {err}");
}
