package audit

// The seam of the tests: a log on a disk that is small or fails.
type (
	Disk   = disk
	File   = file
	OSDisk = osDisk
)

func OpenOn(o Options, d Disk) (*Log, error) { return open(o, d) }
