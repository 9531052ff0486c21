//! What the fuzzer does, without the fuzzer: its seeds and some thousand mutations of them go through its entry points, so
//! that `cargo test` alone knows them, and a seed that breaks something stays in the way. `./dev fuzz` looks further.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "a test: to stop is how it says no"
)]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

#[path = "../fuzz/src/lib.rs"]
mod targets;

/// How many mutations of the seeds each entry point is given.
const MUTATIONS: usize = 10_000;

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        /// The names, as in `fuzz/Cargo.toml`.
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
    let mut dice = SeededRng(0x9e37_79b9_7f4a_7c15);
    for seed in &seeds {
        run_input(target, seed);
    }
    for n in 0..MUTATIONS {
        let mut input = seeds[n % seeds.len()].clone();
        for _ in 0..=dice.below(4) {
            mutate(&mut input, &dictionary, &mut dice);
        }
        run_input(target, &input);
    }
}

fn run_input(target: fn(&[u8]), input: &[u8]) {
    let broke = catch_unwind(AssertUnwindSafe(|| target(input))).is_err();
    let text = String::from_utf8_lossy(input);
    assert!(!broke, "see above; it broke on {text:?} ({input:?}): fix it, and put this into fuzz/seeds");
}

/// One change: a byte, a hole, a stretch doubled, or a stretch of some seed put in.
fn mutate(input: &mut Vec<u8>, dictionary: &[u8], dice: &mut SeededRng) {
    let at = dice.below(input.len() + 1);
    let stretch = |from: &[u8], dice: &mut SeededRng| {
        let start = dice.below(from.len().max(1)).min(from.len());
        let end = (start + 1 + dice.below(24)).min(from.len());
        from[start..end].to_vec()
    };
    match dice.below(5) {
        0 if at < input.len() => input[at] = dice.below(256) as u8,
        1 if at < input.len() => input[at] ^= 1 << dice.below(8),
        2 => drop(input.drain(at..(at + 1 + dice.below(8)).min(input.len()))),
        3 => {
            let again = stretch(input, dice);
            input.splice(at..at, again);
        }
        _ => {
            let other = stretch(dictionary, dice);
            input.splice(at..at, other);
        }
    }
}

/// The same numbers in every run (xorshift64), so that what failed once fails again.
struct SeededRng(u64);

impl SeededRng {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}
