//! The text format of Prometheus, version 0.0.4, from `OpenMetrics` text.

/// The media type of the text format of Prometheus.
pub(super) const PROMETHEUS_MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Converts `OpenMetrics` text. The samples are the same. A counter is named as its samples are,
/// with `_total`, and units and the end mark have no place.
pub(super) fn from_openmetrics(text: &str) -> String {
    let counters = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"));
    let counters = counters.collect::<std::collections::BTreeSet<_>>();
    let mut converted = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(keyword @ ("HELP" | "TYPE")), Some(name), Some(rest)) if counters.contains(name) => {
                converted.extend(["# ", keyword, " ", name, "_total ", rest]);
            }
            _ => converted.push_str(line),
        }
        converted.push('\n');
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_converted() {
        let openmetrics = "# HELP errand_requests Requests.\n# TYPE errand_requests counter\n\
                           errand_requests_total{code=\"ok\"} 3\n# HELP errand_size_bytes Size.\n\
                           # TYPE errand_size_bytes gauge\n# UNIT errand_size_bytes bytes\nerrand_size_bytes 7\n# EOF\n";
        let prometheus = "# HELP errand_requests_total Requests.\n# TYPE errand_requests_total counter\n\
                          errand_requests_total{code=\"ok\"} 3\n# HELP errand_size_bytes Size.\n\
                          # TYPE errand_size_bytes gauge\nerrand_size_bytes 7\n";
        assert_eq!(from_openmetrics(openmetrics), prometheus);
    }
}
