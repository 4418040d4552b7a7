-- What is published: applications, APIs, reports, pages. Written as 0001 is.
INSERT INTO counter (name, last) VALUES ('content', 0), ('bundle', 0), ('tag', 0), ('schedule', 0), ('rendering', 0);

-- Sessions in browsers that began before this hold no more: the password was changed, or the user locked out.
ALTER TABLE account ADD COLUMN sessions_from BIGINT NOT NULL DEFAULT 0;

-- Sessions somebody ended, until they would have ended by themselves.
CREATE TABLE ended_session (
    -- SHA-256 of its id, hexadecimal.
    hash TEXT PRIMARY KEY,
    ended_at BIGINT NOT NULL
);

-- Groups of users: `GROUP` is a word of SQL's own.
CREATE TABLE team (
    id BIGINT PRIMARY KEY,
    guid TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    -- Guid of who made it.
    owner TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE member (
    team_id BIGINT NOT NULL REFERENCES team (id),
    account_id BIGINT NOT NULL REFERENCES account (id),
    PRIMARY KEY (team_id, account_id)
);
CREATE INDEX member_account ON member (account_id);


CREATE TABLE content (
    id BIGINT PRIMARY KEY,
    guid TEXT NOT NULL UNIQUE,
    -- What R's clients know it by.
    number BIGINT NOT NULL UNIQUE,
    -- Guid of the user, or of the program's key, that published it.
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    -- Who may see it: all, logged_in, acl.
    access TEXT NOT NULL,
    -- NULL: nothing was deployed yet.
    app_mode TEXT,
    -- Number of the bundle that runs.
    bundle BIGINT,
    -- Number of the rendering that is shown, of content that is rendered.
    rendering BIGINT,
    -- How it runs, JSON: what differs from the node's defaults.
    settings TEXT NOT NULL,
    is_locked BOOLEAN NOT NULL,
    -- One more with every change of what runs and how.
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deployed_at BIGINT,
    -- When what runs was wanted: what was wanted before that comes too late.
    wanted_at BIGINT,
    UNIQUE (owner, name)
);
CREATE INDEX content_updated ON content (updated_at);

CREATE INDEX job_subject ON job (subject, created_at);

CREATE TABLE bundle (
    -- In order, because R's clients want small numbers.
    number BIGINT PRIMARY KEY,
    content_id BIGINT NOT NULL REFERENCES content (id),
    -- A blob: the .tar.gz as it was sent.
    sha256 TEXT NOT NULL,
    md5 TEXT NOT NULL,
    size BIGINT NOT NULL,
    -- What its manifest.json says of what runs, JSON.
    manifest TEXT NOT NULL,
    -- Where it comes from, JSON: a commit.
    metadata TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    -- What its Python environment had when it was last deployed, as pip freezes it.
    lock TEXT
);
CREATE INDEX bundle_content ON bundle (content_id);
CREATE INDEX bundle_sha256 ON bundle (sha256);

-- Environment variables of content. The values are sealed with the cluster's key.
CREATE TABLE variable (
    content_id BIGINT NOT NULL REFERENCES content (id),
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (content_id, name)
);

-- Who may see or change content beside its owner.
CREATE TABLE permission (
    id BIGINT PRIMARY KEY,
    content_id BIGINT NOT NULL REFERENCES content (id),
    -- user, group.
    kind TEXT NOT NULL,
    -- A guid.
    principal TEXT NOT NULL,
    -- viewer, owner.
    role TEXT NOT NULL,
    UNIQUE (content_id, kind, principal)
);
CREATE INDEX permission_principal ON permission (principal);

CREATE TABLE vanity (
    -- '/sales/': with both slashes.
    path TEXT PRIMARY KEY,
    content_id BIGINT NOT NULL UNIQUE REFERENCES content (id),
    created_at BIGINT NOT NULL
);

-- Words that content is sorted by; a tree.
CREATE TABLE tag (
    -- In order.
    number BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    parent BIGINT REFERENCES tag (number),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX tag_parent ON tag (parent);

CREATE TABLE tagged (
    content_id BIGINT NOT NULL REFERENCES content (id),
    tag BIGINT NOT NULL REFERENCES tag (number),
    PRIMARY KEY (content_id, tag)
);
CREATE INDEX tagged_tag ON tagged (tag);

-- Keys that R's clients make for themselves; a user claims one in the browser.
CREATE TABLE client_token (
    token TEXT PRIMARY KEY,
    -- RSA, RSAPublicKey of RFC 8017 as DER, base64.
    public_key TEXT NOT NULL,
    -- Who asked for it: an address, of IPv6 its network.
    address TEXT,
    created_at BIGINT NOT NULL,
    account_id BIGINT REFERENCES account (id),
    claimed_at BIGINT,
    -- With the API key it was claimed by; NULL: never.
    expires_at BIGINT,
    -- That key, with whose end it ends; NULL: a password.
    api_key_id BIGINT REFERENCES api_key (id)
);
CREATE INDEX client_token_key ON client_token (api_key_id);
CREATE INDEX client_token_account ON client_token (account_id);
CREATE INDEX client_token_created ON client_token (created_at);

-- Signed requests that change something: none is taken twice.
CREATE TABLE signed (
    -- SHA-256 of token and what was signed, hexadecimal.
    hash TEXT PRIMARY KEY,
    taken_at BIGINT NOT NULL
);
CREATE INDEX signed_taken ON signed (taken_at);

-- What came of rendering a bundle.
CREATE TABLE rendering (
    number BIGINT PRIMARY KEY,
    content_id BIGINT NOT NULL REFERENCES content (id),
    bundle BIGINT NOT NULL,
    -- A blob: a .tar of what it wrote.
    sha256 TEXT NOT NULL,
    size BIGINT NOT NULL,
    -- The file of it that is shown first.
    main TEXT NOT NULL,
    -- Microseconds it took.
    took BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);
CREATE INDEX rendering_content ON rendering (content_id, number);
CREATE INDEX rendering_sha256 ON rendering (sha256);

-- When content is rendered again.
CREATE TABLE schedule (
    number BIGINT PRIMARY KEY,
    content_id BIGINT NOT NULL UNIQUE REFERENCES content (id),
    -- As Posit Connect's clients write it: minute, hour, day, … and its JSON.
    kind TEXT NOT NULL,
    plan TEXT NOT NULL,
    starts_at BIGINT NOT NULL,
    -- IANA's name of it.
    zone TEXT NOT NULL,
    -- What comes of it is shown.
    activates BOOLEAN NOT NULL,
    -- Its owner gets a mail when it is done; when it failed they get one anyhow.
    mails BOOLEAN NOT NULL,
    -- NULL: never.
    next_at BIGINT,
    created_by TEXT NOT NULL
);
CREATE INDEX schedule_next ON schedule (next_at);

-- What each node is asked to do, until it has. When all have, the job ends.
CREATE TABLE errand (
    job_id BIGINT NOT NULL REFERENCES job (id),
    -- The process that is asked.
    node TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (job_id, node)
);
