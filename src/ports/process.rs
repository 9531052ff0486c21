//! What the operating system knows of this process.

/// The resources that this process uses, for its metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUsage {
    /// Processor time in seconds, user and system.
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Virtual memory in bytes.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_descriptors: u64,
    /// The limit of open file descriptors. `None` stands for no limit.
    pub max_descriptors: Option<u64>,
    /// Start of the process in seconds since 1970.
    pub start_seconds: f64,
    /// Threads.
    pub threads: u64,
}
