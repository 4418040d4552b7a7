//! Websocket close codes as Shiny clients read them (RFC 6455 §7.4.1; the 4xxx families are Shiny Server's).

/// A close code as a metric label: a closed set.
///
/// 1000 and 1001, sent in order, end a Shiny session for good; 1012 makes its page reload; 45xx: stay closed; 46xx: come
/// back to the same session; 47xx: begin a new one. Without a Close frame the client may come back.
pub fn label(code: Option<u16>) -> &'static str {
    match code {
        None | Some(1005) => "none",
        Some(1000) => "1000",
        Some(1001) => "1001",
        Some(1002) => "1002",
        Some(1003) => "1003",
        Some(1007) => "1007",
        Some(1008) => "1008",
        Some(1009) => "1009",
        Some(1010) => "1010",
        Some(1011) => "1011",
        Some(1012) => "1012",
        Some(1013) => "1013",
        Some(1014) => "1014",
        Some(3000) => "3000",
        Some(4500..=4599) => "45xx",
        Some(4600..=4699) => "46xx",
        Some(4700..=4799) => "47xx",
        Some(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_one_label() {
        assert_eq!(
            [label(None), label(Some(1001)), label(Some(4503)), label(Some(3001))],
            ["none", "1001", "45xx", "other"]
        );
    }
}
