use futures_util::StreamExt;

use super::*;

async fn all(stream: Bytestream) -> io::Result<Vec<u8>> {
    let mut stream = stream;
    let mut whole = Vec::new();
    while let Some(piece) = stream.next().await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole)
}

async fn open(dir: &std::path::Path, encrypt: bool) -> (Blobs, Spool) {
    let spool = Spool::open(&dir.join("s")).unwrap();
    let place = Place { at: Where::Directory(dir.join("b")), encrypt };
    (Blobs::open(&place, Secret::new([7; 32]), spool.clone(), 0).await.unwrap(), spool)
}

#[tokio::test]
async fn sealed_blobs_read_as_others_do_and_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, spool) = open(dir.path(), false).await;
    let old = spool.whole(b"kept before sealing was wanted").unwrap();
    plain.keep(&old).await.unwrap();
    let (sealing, spool) = open(dir.path(), true).await;
    let bytes = b"nobody reads this ".repeat(10_000);
    let new = spool.whole(&bytes).unwrap();
    sealing.keep(&new).await.unwrap();
    sealing.keep(&new).await.unwrap();
    for blobs in [&plain, &sealing] {
        assert_eq!(blobs.size(&new.digest()).await.unwrap(), 180_000);
        assert_eq!(all(blobs.read(&new.digest(), 0..180_000).await.unwrap()).await.unwrap(), bytes);
        assert_eq!(all(blobs.read(&new.digest(), 70_000..70_010).await.unwrap()).await.unwrap(), bytes[70_000..70_010]);
        assert_eq!(blobs.size(&old.digest()).await.unwrap(), 30);
    }
    let mut folders = vec![dir.path().join("b")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let there = std::fs::read(&path).unwrap();
                assert!(!there.windows(17).any(|w| w == b"nobody reads this"), "{} can be read", path.display());
            }
        }
    }
}

#[tokio::test]
async fn what_is_kept_reads_back_whole_and_in_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let (blobs, spool) = open(dir.path(), false).await;
    let bytes: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
    let spooled = spool.whole(&bytes).unwrap();
    let digest = spooled.digest();
    blobs.keep(&spooled).await.unwrap();
    blobs.keep(&spooled).await.unwrap();
    drop(spooled);
    let own = std::fs::read_dir(dir.path().join("s")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::read_dir(&own).unwrap().count(), 1, "of the spool its lock is left");
    assert_eq!(std::fs::read_dir(dir.path().join("b/incoming")).unwrap().count(), 0);
    assert_eq!(blobs.size(&digest).await.unwrap(), 700_000);
    assert_eq!(all(blobs.read(&digest, 0..700_000).await.unwrap()).await.unwrap(), bytes);
    let part = blobs.read(&digest, 299_999..300_005).await.unwrap();
    assert_eq!(all(part).await.unwrap(), bytes[299_999..300_005]);
    let missing = Sha256::new([7; 32]);
    assert!(matches!(blobs.read(&missing, 0..1).await.err(), Some(BlobError::Missing(m)) if m == missing));
}

#[tokio::test]
async fn small_blobs_come_from_memory_and_large_ones_piece_by_piece() {
    let dir = tempfile::tempdir().unwrap();
    for encrypt in [false, true] {
        let (blobs, spool) = open(&dir.path().join(encrypt.to_string()), encrypt).await;
        let bytes: Vec<u8> = (0..700_000_u32).map(|n| (n % 253) as u8).collect();
        let (small, large) = (spool.whole(&bytes[..400_000]).unwrap(), spool.whole(&bytes).unwrap());
        for spooled in [&small, &large] {
            blobs.keep(spooled).await.unwrap();
        }
        for _ in 0..2 {
            let Content::Whole(got) = blobs.get(&small.digest(), 100..300_000).await.unwrap() else {
                panic!("it is small")
            };
            assert_eq!(got, bytes[100..300_000]);
        }
        let Content::Stream(got) = blobs.get(&large.digest(), 1..650_000).await.unwrap() else { panic!("it is large") };
        assert_eq!(all(got).await.unwrap(), bytes[1..650_000]);
    }
}

#[tokio::test]
async fn a_blob_that_became_shorter_is_an_error_and_no_short_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (blobs, spool) = open(dir.path(), false).await;
    let spooled = spool.whole(&[1; 5000]).unwrap();
    blobs.keep(&spooled).await.unwrap();
    let name = spooled.digest().to_string();
    let stream = blobs.read(&spooled.digest(), 0..6000).await.unwrap();
    assert_eq!(all(stream).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{name}");
    let path = dir.path().join("b/sha256").join(&name[..2]).join(&name[2..4]).join(&name);
    blobs.size(&spooled.digest()).await.unwrap();
    std::fs::write(path, [1; 4000]).unwrap();
    let cut = blobs.get(&spooled.digest(), 0..5000).await;
    assert!(matches!(cut.err(), Some(BlobError::Unavailable(_))), "none of it is sent");
}

#[test]
fn what_a_killed_process_left_is_swept_and_what_a_living_one_has_stays() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("killed");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("lock"), "").unwrap();
    std::fs::write(left.join("x.spool"), "half").unwrap();
    std::fs::write(dir.path().join("other"), "not ours").unwrap();
    let one = Spool::open(dir.path()).unwrap();
    let kept = one.whole(b"x").unwrap();
    let two = Spool::open(dir.path()).unwrap();
    assert!(!left.exists() && kept.path().exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "two spools and what is not ours");
    drop((kept, one, two));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn nodes_on_one_storage_see_one_anothers_marks() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path(), false).await.0, open(dir.path(), true).await.0);
    assert_eq!(a.mark("a").await.unwrap(), ["a"]);
    let mut seen = b.mark("b").await.unwrap();
    seen.sort();
    assert_eq!(seen, ["a", "b"]);
    b.unmark("a").await.unwrap();
    b.unmark("a").await.unwrap();
    assert_eq!(b.mark("b").await.unwrap(), ["b"]);
}
