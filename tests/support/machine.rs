//! Parts that a machine may lack: programs, and the right to mount. A test that lacks its part says
//! so, and fails in CI.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// Reports that a test was not run. `./dev` prints the reports at the end; in CI the test fails.
#[expect(clippy::print_stderr, reason = "the report is for the person who runs the tests")]
pub fn report_not_run(test: &str, missing: &str) {
    let text = format!("NOT RUN: {test}: {missing}");
    eprintln!("{text}");
    if let Some(file) = std::env::var_os("ERRAND_TEST_NOT_RUN") {
        let mut file = File::options().create(true).append(true).open(file).unwrap();
        writeln!(file, "{text}").unwrap();
    }
    assert!(std::env::var_os("CI").is_none(), "{text}; CI must run every test");
}

/// Returns the path of a program.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// A small file system in memory, which is unmounted on drop.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts a file system of this size. `None`: this user may not mount.
    pub fn mount(kilobytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={kilobytes}k,mode=0777");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }

    /// Returns the path of the file system.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills the rest of the disk.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        // Large blocks first, then small ones, until nothing more fits.
        for size in [65_536, 4096, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    /// Frees what [`fill`](Self::fill) took.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What stays mounted is in memory only. `-l`: a process may still have a file open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}
