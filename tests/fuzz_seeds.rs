//! Fuzz targets without a fuzzer.
//!
//! Each target processes its seeds and thousands of mutations of them, so that `cargo test` alone
//! covers the targets. A seed for a fixed bug is a regression test. `./dev fuzz` explores more
//! inputs.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "a failed assumption fails the test"
)]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

#[path = "../fuzz/src/lib.rs"]
mod targets;

/// The number of mutated inputs for each fuzz target.
const MUTATIONS: usize = 10_000;

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        /// The names of the fuzz targets, as in `fuzz/Cargo.toml`.
        const TARGETS: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            run(stringify!($name), targets::$name);
        })*
    };
}

targets!(form, jws, details, claims, scope, uri);

#[test]
fn every_fuzz_target_is_listed() {
    let manifest = include_str!("../fuzz/Cargo.toml");
    let bins = manifest.split("[[bin]]").skip(1).map(|bin| bin.split('"').nth(1).unwrap());
    assert_eq!(bins.collect::<Vec<_>>(), TARGETS);
}

fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
    files.sort();
    let seeds = files.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>();
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    let dictionary = seeds.iter().flatten().copied().collect::<Vec<_>>();
    let mut rng = SeededRng(0x9e37_79b9_7f4a_7c15);
    for seed in &seeds {
        run_input(target, seed);
    }
    for n in 0..MUTATIONS {
        let mut input = seeds[n % seeds.len()].clone();
        for _ in 0..=rng.below(4) {
            mutate(&mut input, &dictionary, &mut rng);
        }
        run_input(target, &input);
    }
}

fn run_input(target: fn(&[u8]), input: &[u8]) {
    let has_panicked = catch_unwind(AssertUnwindSafe(|| target(input))).is_err();
    let text = String::from_utf8_lossy(input);
    assert!(!has_panicked, "the target panicked on {text:?} ({input:?}); fix the bug and add this input to fuzz/seeds");
}

/// Applies one mutation: changes a byte, flips a bit, removes, duplicates or inserts a slice.
///
/// An inserted slice comes from `dictionary`, the concatenation of all seeds.
fn mutate(input: &mut Vec<u8>, dictionary: &[u8], rng: &mut SeededRng) {
    let at = rng.below(input.len() + 1);
    let slice = |from: &[u8], rng: &mut SeededRng| {
        let start = rng.below(from.len().max(1)).min(from.len());
        let end = (start + 1 + rng.below(24)).min(from.len());
        from[start..end].to_vec()
    };
    match rng.below(5) {
        0 if at < input.len() => input[at] = rng.below(256) as u8,
        1 if at < input.len() => input[at] ^= 1 << rng.below(8),
        2 => drop(input.drain(at..(at + 1 + rng.below(8)).min(input.len()))),
        3 => {
            let duplicate = slice(input, rng);
            input.splice(at..at, duplicate);
        }
        _ => {
            let inserted = slice(dictionary, rng);
            input.splice(at..at, inserted);
        }
    }
}

/// A deterministic random number generator (xorshift64). A failure is reproduced by the next run.
struct SeededRng(u64);

impl SeededRng {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}
