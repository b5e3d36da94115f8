//! How long a client waits, from the headers that clients send.

use std::time::Duration;

use axum::http::HeaderMap;

/// Headers with a number, and how many milliseconds one of it is.
const HEADERS: [(&str, f64); 4] = [
    ("x-request-timeout-ms", 1.0),
    // Envoy's.
    ("x-envoy-expected-rq-timeout-ms", 1.0),
    // Those of OpenAI's clients for Python and for JavaScript.
    ("x-stainless-read-timeout", 1e3),
    ("x-stainless-timeout", 1e3),
];

/// The shortest time that a header asks for, or `most`. A header that is no positive number is not understood, and ignored:
/// these are hints of proxies and libraries, not the user's fields.
pub(crate) fn of(headers: &HeaderMap, most: Duration) -> Duration {
    let asked = HEADERS.iter().filter_map(|(name, unit)| {
        let value: f64 = headers.get(*name)?.to_str().ok()?.trim().parse().ok()?;
        Duration::try_from_secs_f64(value * unit / 1e3).ok().filter(|time| !time.is_zero())
    });
    asked.min().map_or(most, |time| time.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_time_counts_and_nonsense_does_not() {
        let most = Duration::from_secs(60);
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            super::of(&headers.collect::<HeaderMap>(), most)
        };
        assert_eq!(of(&[]), most);
        assert_eq!(of(&[("x-request-timeout-ms", "250")]), Duration::from_millis(250));
        assert_eq!(of(&[("x-stainless-read-timeout", "600")]), most);
        assert_eq!(
            of(&[("x-stainless-read-timeout", "5"), ("x-envoy-expected-rq-timeout-ms", "1500")]),
            Duration::from_millis(1500)
        );
        for nonsense in ["", "soon", "NaN", "-1", "0", "inf", "1e400"] {
            assert_eq!(of(&[("x-stainless-timeout", nonsense)]), most, "{nonsense}");
        }
    }
}
