// The program in the images that a local cluster's Linux nodes need before there are any others.
module espalier.dev/tools/tiny

go 1.26.0

tool espalier.dev/tools/tiny
