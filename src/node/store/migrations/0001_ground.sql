-- Written so that SQLite and PostgreSQL read it alike: text, 64-bit integers and booleans only. Times are microseconds
-- since 1970, digests lower-case hexadecimal, ids random positive integers made by the node.

-- Which programs may run beside this schema: those whose last known migration is at least `tolerates`. A migration that
-- takes something away from older programs raises it.
CREATE TABLE schema_guard (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    tolerates BIGINT NOT NULL
);
INSERT INTO schema_guard (one, tolerates) VALUES (1, 1);

-- What all nodes must agree on: the key's fingerprint.
CREATE TABLE fact (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- The registry: one row per process that runs or ran lately.
CREATE TABLE node (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    -- Tells machines apart: SQLite is for one.
    machine TEXT NOT NULL,
    version TEXT NOT NULL,
    -- The last migration it knows.
    schema_known BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    -- By the database's clock, like everything that two machines compare.
    seen_at BIGINT NOT NULL,
    -- What it says of itself, JSON: see `registry::Report`.
    report TEXT NOT NULL
);

-- Numbers given in order, where clients want small ones.
CREATE TABLE counter (
    name TEXT PRIMARY KEY,
    last BIGINT NOT NULL
);
INSERT INTO counter (name, last) VALUES ('account', 0);

-- People.
CREATE TABLE account (
    id BIGINT PRIMARY KEY,
    guid TEXT NOT NULL UNIQUE,
    -- What R's clients know a user by.
    number BIGINT NOT NULL UNIQUE,
    -- Lower-case: what one logs in with.
    username TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL,
    first_name TEXT NOT NULL,
    last_name TEXT NOT NULL,
    -- viewer, publisher, administrator.
    role TEXT NOT NULL,
    -- As a PHC string of Argon2id; NULL: nobody logs in with one.
    password TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    locked_at BIGINT
);

CREATE TABLE api_key (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    -- Whose it is, and with whom it ends; NULL: a program's.
    account_id BIGINT REFERENCES account (id),
    -- SHA-256 of the key: it has 256 random bits, so a slow hash would protect nothing.
    hash TEXT NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    -- NULL: every repository.
    repository TEXT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX api_key_account ON api_key (account_id);

CREATE TABLE audit (
    id BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    address TEXT
);
CREATE INDEX audit_at ON audit (at);

CREATE TABLE repository (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    language TEXT NOT NULL,
    anonymous_read BOOLEAN NOT NULL,
    -- One more with every change of what the repository shows.
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE source (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    language TEXT NOT NULL,
    -- local, remote, git.
    kind TEXT NOT NULL,
    -- What its kind needs, JSON.
    settings TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE subscription (
    repository_id BIGINT NOT NULL REFERENCES repository (id),
    source_id BIGINT NOT NULL REFERENCES source (id),
    position BIGINT NOT NULL,
    PRIMARY KEY (repository_id, source_id)
);

CREATE TABLE project (
    id BIGINT PRIMARY KEY,
    source_id BIGINT NOT NULL REFERENCES source (id),
    normal_name TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    status_reason TEXT,
    created_at BIGINT NOT NULL,
    UNIQUE (source_id, normal_name)
);

CREATE TABLE file (
    id BIGINT PRIMARY KEY,
    project_id BIGINT NOT NULL REFERENCES project (id),
    source_id BIGINT NOT NULL REFERENCES source (id),
    -- Where in the source's tree: '' for what PyPI has and for CRAN's sources, 'linux/bookworm/4.2' for a binary.
    location TEXT NOT NULL,
    filename TEXT NOT NULL,
    version TEXT NOT NULL,
    kind TEXT NOT NULL,
    size BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    md5 TEXT NOT NULL,
    blake2 TEXT NOT NULL,
    requires_python TEXT,
    -- SHA-256 of the core metadata, a blob of its own.
    metadata_sha256 TEXT,
    -- SHA-256 of what was uploaded to prove where it comes from (PEP 740), a blob of its own.
    provenance_sha256 TEXT,
    -- What its publisher says of it, JSON: PyPI's metadata fields, or CRAN's DESCRIPTION.
    record TEXT NOT NULL,
    -- NULL: not yanked; else the reason, which may be empty.
    yanked TEXT,
    yanked_at BIGINT,
    -- NULL: shown; else it was moved to CRAN's Archive then.
    archived_at BIGINT,
    uploaded_at BIGINT NOT NULL,
    uploaded_by TEXT NOT NULL,
    -- A removed file keeps its row, because its name is never given to other bytes.
    removed_at BIGINT,
    UNIQUE (source_id, location, filename)
);
CREATE INDEX file_project ON file (project_id);
CREATE INDEX file_sha256 ON file (sha256);
CREATE INDEX file_metadata ON file (metadata_sha256);
CREATE INDEX file_provenance ON file (provenance_sha256);

-- What other indexes said last of a project or folder, and until when that need not be asked again.
CREATE TABLE remote_page (
    source_id BIGINT NOT NULL REFERENCES source (id),
    name TEXT NOT NULL,
    fetched_at BIGINT NOT NULL,
    -- When it last said so, with or without a change.
    asked_at BIGINT NOT NULL,
    fresh_until BIGINT NOT NULL,
    etag TEXT,
    -- A blob; NULL: there is no such project.
    sha256 TEXT,
    PRIMARY KEY (source_id, name)
);
CREATE INDEX remote_page_sha256 ON remote_page (sha256);

-- What other CRAN-like repositories said of a folder, by day (since 1970, UTC): the last of each day on which it changed.
-- Dated views are made of it.
CREATE TABLE remote_day (
    source_id BIGINT NOT NULL REFERENCES source (id),
    name TEXT NOT NULL,
    day BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    -- A blob; NULL: it was gone.
    sha256 TEXT,
    PRIMARY KEY (source_id, name, day)
);
CREATE INDEX remote_day_sha256 ON remote_day (sha256);

-- Files of other indexes that are kept here.
CREATE TABLE remote_file (
    source_id BIGINT NOT NULL REFERENCES source (id),
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    fetched_at BIGINT NOT NULL,
    -- The day it was last used (since 1970, UTC).
    used_day BIGINT NOT NULL,
    PRIMARY KEY (source_id, path)
);
CREATE INDEX remote_file_sha256 ON remote_file (sha256);

-- Work that some node does: once, and again where a node died over it.
CREATE TABLE job (
    id BIGINT PRIMARY KEY,
    -- collect, sync, build.
    kind TEXT NOT NULL,
    -- What it is about, for people.
    subject TEXT NOT NULL,
    -- What it needs, JSON.
    input TEXT NOT NULL,
    -- Until it has ended nothing else has the same; NULL: it has ended.
    slot TEXT UNIQUE,
    -- waiting, running, done, failed, cancelled.
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    -- How often it was claimed: who claimed it before has no say any more.
    attempt BIGINT NOT NULL,
    -- How often its node died over it.
    deaths BIGINT NOT NULL,
    -- The process that has it.
    node TEXT,
    started_at BIGINT,
    ended_at BIGINT,
    -- What came of it, in a sentence.
    result TEXT,
    is_cancelled BOOLEAN NOT NULL
);
CREATE INDEX job_state ON job (state, kind, created_at);
CREATE INDEX job_created ON job (created_at);

CREATE TABLE job_line (
    job_id BIGINT NOT NULL REFERENCES job (id),
    number BIGINT NOT NULL,
    at BIGINT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (job_id, number)
);

-- Blobs that no row names. They are deleted when they have been here for long enough.
CREATE TABLE garbage (
    sha256 TEXT PRIMARY KEY,
    since BIGINT NOT NULL,
    -- NULL: not yet; else it is being deleted, or was. Who publishes the same bytes then keeps them anew.
    condemned_at BIGINT,
    is_deleted BOOLEAN NOT NULL
);

-- Files that clients got whole, by day (since 1970, UTC).
CREATE TABLE download (
    day BIGINT NOT NULL,
    repository_id BIGINT NOT NULL,
    package TEXT NOT NULL,
    version TEXT NOT NULL,
    -- pip, uv, R, …
    client TEXT NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (repository_id, day, package, version, client)
);

-- What a repository does not give, although its sources have it.
CREATE TABLE block (
    repository_id BIGINT NOT NULL REFERENCES repository (id),
    -- As looked up.
    package TEXT NOT NULL,
    -- Such as '<2.0'; '': all.
    versions TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (repository_id, package, versions)
);
