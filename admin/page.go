package admin

import (
	"slices"

	"gatehouse/admin/api"
)

// cutPage takes the entries behind the cursor after, at most limit, from a list that is in the order of its cursors. A
// cursor that names no entry any more goes on where the entry would have been; a forged one shows nothing that the list does
// not hold.
func cutPage[T any](all []T, after string, limit int, cursor func(T) string) api.Page[T] {
	from := 0
	if after != "" {
		from, _ = slices.BinarySearchFunc(all, after, func(entry T, after string) int {
			if cursor(entry) <= after {
				return -1
			}
			return 1
		})
	}
	rest := all[from:]
	page := api.Page[T]{Items: slices.Clone(rest[:min(limit, len(rest))])}
	if page.Items == nil {
		page.Items = []T{} // [] and not null
	}
	if len(rest) > limit {
		page.Next = cursor(page.Items[limit-1])
	}
	return page
}
