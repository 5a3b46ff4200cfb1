//! The memory of this process.

/// Gives what the allocator holds free back to the kernel. It takes about a millisecond for each ten megabytes, and waits for no
/// other thread longer than an allocation does.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks and touches nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    /// Anonymous memory of this process, in KiB.
    fn held() -> u64 {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn what_is_free_goes_back() {
        // Small pieces with one of them in use at the end: the allocator gives none of it back by itself.
        let mut pieces: Vec<Vec<u8>> = (0..64 << 10).map(|_| vec![1; 1000]).collect();
        let last = pieces.pop();
        drop(pieces);
        let before = held();
        super::give_back();
        let after = held();
        assert!(
            before > 50 << 10 && after < before / 2,
            "{before} KiB, {after} KiB after"
        );
        drop(last);
    }
}
