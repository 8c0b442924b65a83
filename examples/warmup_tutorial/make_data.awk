# 256 rows of ten features and y = w x + 0.5 + noise, the same on every machine: awk -f make_data.awk > linear.csv
function uniform() {
  seed = (seed * 16807) % 2147483647
  return seed / 2147483647
}
# The sum of twelve uniform numbers is close to a normal one.
function normal(   k, sum) {
  sum = -6
  for (k = 0; k < 12; k++) sum += uniform()
  return sum
}
BEGIN {
  seed = 20
  for (j = 1; j <= 10; j++) w[j] = normal()
  for (j = 1; j <= 10; j++) printf "x%d,", j
  print "y"
  for (i = 0; i < 256; i++) {
    y = 0.5 + 0.1 * normal()
    for (j = 1; j <= 10; j++) {
      x = normal()
      y += w[j] * x
      printf "%.3f,", x
    }
    printf "%.3f\n", y
  }
}
