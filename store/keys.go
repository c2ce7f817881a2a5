package store

import (
	"fmt"
	"net/netip"
)

// Collection names records that are listed together: one hash in Redis, one bucket in bbolt.
type Collection string

// Key names one record. Only the functions of this file make one.
type Key struct {
	// Collection is what the record is listed in; empty for a record that stands alone.
	Collection Collection
	// ID is unique within the collection, or among all records that stand alone.
	ID string
}

// String spells the key as docs/state.md does.
func (k Key) String() string {
	if k.Collection == "" {
		return k.ID
	}
	return string(k.Collection) + " " + k.ID
}

// CounterKey names one counter. Only the functions of this file make one.
type CounterKey string

// Prefix stands before every key in a shared Redis.
const Prefix = "gatehouse:"

// FeedKey is where an engine keeps the feed.
const FeedKey = "feed"

// Shards is the number of collections over which a large kind of record is split.
const Shards = 64

// Kind describes one kind of key, for docs/state.md.
type Kind struct {
	Pattern  string // the key, with <placeholders>
	Type     string // record, collection, counter or feed
	Lifetime string // after which it may be gone, or "kept"
	Owner    string // the package that reads and writes it
	Holds    string
}

// Kinds is every kind of key that Gatehouse writes; docs/state.md is made from it.
var Kinds = []Kind{
	{"keyring", "record", "kept", "secrets", "the key-encryption keys, sealed by the root key"},
	{"material <name>", "collection", "kept", "secrets", "keys of this store, each created once: signing, handle, device, names, pepper"},
	{"users <user id>", "collection", "kept", "auth/user", "accounts with everything enrolled"},
	{"name/<HMAC of the canonical name>", "record", "kept", "auth/user", "the user id that has the name"},
	{"password-cost", "record", "kept", "auth/user", "the highest bcrypt cost of any stored hash"},
	{"history/<user id>", "record", "180 days after the last complete login", "auth/device", "known devices and networks of an account"},
	{"lockout/<shard> <HMAC of the canonical name>.<client class>", "collection", "15 minutes after its last entry; 30 days while failures run on", "auth/lockout", "password attempts and the lock of one account and client class"},
	{"codes/<shard> <user id>.<client class>", "collection", "15 minutes after its last entry; 30 days while failures run on", "auth/lockout", "wrong codes of one account and client class"},
	{"pending/<SHA-256 of the challenge>", "record", "5 minutes", "auth", "a login between its first and last step"},
	{"link/<SHA-256 of the token>", "record", "72 hours, an invitation; deleted when used", "auth/link", "a one-time link, and what was chosen on its page so far"},
	{"app-token/<shard> <id>", "collection", "the token's end", "auth/apptoken", "an app token: the SHA-256 of it, whose it is, for which route, and when it was used"},
	{"handoff/<SHA-256 of the code>", "record", "60 seconds; deleted when used", "session/handoff", "which session a code hands over to which host, in which browser, and where to go there"},
	{"setup", "record", "kept; the link in it 30 minutes", "auth/link", "the set-up link with its token; once there is an administrator, only that it is closed"},
	{"sessions/<user id> <session id>", "collection", "the session's absolute limit", "session", "sessions of a user"},
	{"session-of/<public id>", "record", "the session's absolute limit", "session", "the user id and session id behind a public id"},
	{"sessions-ended/<user id>", "record", "the absolute limit of a session", "session", "the instant before which a login of the user starts no session"},
	{"handle/<session id>.<host tag>", "counter", "the session's absolute limit", "session", "which handle of a host was presented last, and when first"},
	{"bucket/<address or prefix>", "counter", "until the bucket is full again", "ratelimit", "token bucket of a client address (GCRA, microseconds)"},
	{"totp/<enrolment id>", "counter", "kept until the enrolment ends", "auth/totp", "last used time step"},
	{"acme/<directory tag>.<name>", "record", "kept; challenges 1 hour, the turn 5 minutes", "certificate", "ACME account, certificates with their keys, answers to challenges, and whose turn to order it is"},
	{FeedKey, "feed", "kept; messages 15 minutes, the newest stays", "session", "revocations, to every gateway"},
}

// KeyringKey is the keyring, the one record that the keyring itself does not seal.
func KeyringKey() Key { return Key{ID: "keyring"} }

// Material is the collection of this store's keys.
const Material Collection = "material"

// MaterialKey is one key of this store: signing, handle, device, names, pepper.
func MaterialKey(name string) Key { return Key{Collection: Material, ID: name} }

// Users is the collection of all accounts.
const Users Collection = "users"

// UserKey is an account.
func UserKey(userID string) Key { return Key{Collection: Users, ID: userID} }

// NameKey is what leads from a canonical name, given as its HMAC, to an account.
func NameKey(nameTag string) Key { return Key{ID: "name/" + nameTag} }

// PasswordCostKey is the highest bcrypt cost among the stored hashes.
func PasswordCostKey() Key { return Key{ID: "password-cost"} }

// HistoryKey is the known devices and networks of an account.
func HistoryKey(userID string) Key { return Key{ID: "history/" + userID} }

// LockoutKey is a password window. nameTag is the hexadecimal HMAC of the canonical name, class the client class.
func LockoutKey(nameTag, class string) Key {
	return Key{Collection: LockoutShard(shard(nameTag)), ID: nameTag + "." + class}
}

// LockoutShard is one of the Shards collections of password windows.
func LockoutShard(n int) Collection { return Collection(fmt.Sprintf("lockout/%02d", n)) }

// CodesKey is a wrong-code window of an account and client class.
func CodesKey(userID, class string) Key {
	return Key{Collection: CodesShard(shard(userID)), ID: userID + "." + class}
}

// CodesShard is one of the Shards collections of wrong-code windows.
func CodesShard(n int) Collection { return Collection(fmt.Sprintf("codes/%02d", n)) }

// PendingKey is a pending login, by the hexadecimal SHA-256 of its challenge.
func PendingKey(challengeHash string) Key { return Key{ID: "pending/" + challengeHash} }

// LinkKey is a one-time link, by the hexadecimal SHA-256 of its token.
func LinkKey(tokenHash string) Key { return Key{ID: "link/" + tokenHash} }

// AppTokenKey is one app token, by its id.
func AppTokenKey(id string) Key { return Key{Collection: AppTokenShard(shard(id)), ID: id} }

// AppTokenShard is one of the Shards collections of app tokens.
func AppTokenShard(n int) Collection { return Collection(fmt.Sprintf("app-token/%02d", n)) }

// HandOffKey is a hand-off code, by its hexadecimal SHA-256.
func HandOffKey(codeHash string) Key { return Key{ID: "handoff/" + codeHash} }

// SetupKey is the set-up link, of which there is one for all gateways of a store.
func SetupKey() Key { return Key{ID: "setup"} }

// Sessions is the collection of a user's sessions.
func Sessions(userID string) Collection { return Collection("sessions/" + userID) }

// SessionKey is one session.
func SessionKey(userID, sessionID string) Key {
	return Key{Collection: Sessions(userID), ID: sessionID}
}

// SessionOfKey leads from a session's public id to its user id and session id.
func SessionOfKey(publicID string) Key { return Key{ID: "session-of/" + publicID} }

// SessionsEndedKey is the instant at which all sessions of a user were ended.
func SessionsEndedKey(userID string) Key { return Key{ID: "sessions-ended/" + userID} }

// HandleKey is what is known of the use of a session's handles on one host.
func HandleKey(sessionID, hostTag string) CounterKey {
	return CounterKey("handle/" + sessionID + "." + hostTag)
}

// BucketKey is the token bucket of an address prefix: /32, /64 or /48.
func BucketKey(prefix netip.Prefix) CounterKey { return CounterKey("bucket/" + prefix.String()) }

// TOTPKey is the last used time step of an enrolment.
func TOTPKey(enrolmentID string) CounterKey { return CounterKey("totp/" + enrolmentID) }

// ACMEKey is what is kept for an ACME authority, given as a tag of its directory: an account, a certificate, a challenge, the turn.
func ACMEKey(directoryTag, name string) Key { return Key{ID: "acme/" + directoryTag + "." + name} }

// shard spreads ids over the shards. Ids are random or an HMAC, so any stable function of all their bytes does.
func shard(id string) int {
	sum := uint32(2166136261) // FNV-1a
	for i := range len(id) {
		sum = (sum ^ uint32(id[i])) * 16777619
	}
	return int(sum % Shards)
}
