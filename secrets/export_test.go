package secrets

// Exposed lets a test judge a file that it could make only as root.
var Exposed = exposed
