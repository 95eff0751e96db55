import { randomInt } from 'node:crypto';
import { invalidArgument } from '@flotilla/errors';

const allowedName = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

/**
 * Check a name that a user gave; one leading slash is dropped, as dockerd does.
 *
 * @throws EngineError `invalidArgument` in Docker's words.
 */
export function parseContainerName(name: string): string {
  const bare = name.startsWith('/') ? name.slice(1) : name;
  if (!allowedName.test(bare)) {
    throw invalidArgument(`Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`);
  }
  return bare;
}

/** A free name such as `calm_lovelace`; from the fourth try on with a digit, at last with a number that ends every collision. */
export function generateContainerName(isTaken: (name: string) => boolean): string {
  for (let attempt = 0; attempt < 12; attempt++) {
    const pair = `${pick(adjectives)}_${pick(surnames)}`;
    const name = attempt < 3 ? pair : `${pair}${randomInt(10)}`;
    if (!isTaken(name)) return name;
  }
  for (;;) {
    const name = `${pick(adjectives)}_${pick(surnames)}${randomInt(1_000_000_000)}`;
    if (!isTaken(name)) return name;
  }
}

function pick(words: readonly string[]): string {
  return words[randomInt(words.length)] ?? 'nameless';
}

const adjectives =
  words(`able agile airy alert amber ample apt artful avid awake balmy bold brave breezy bright brisk calm candid
  careful charming cheery civil clean clear clever coastal cosmic cozy crafty crisp curious daring dazzling deft devoted dreamy eager
  earnest easygoing elated elegant epic exact fair faithful fearless festive fine flowing fluent focused fond frank free fresh friendly
  frosty gallant gentle gifted glad gleaming golden graceful grand great handy happy hardy hearty helpful honest hopeful humble inspired
  jolly jovial joyful keen kind laughing lively loving loyal lucid lucky magical mellow merry mighty mindful modest musing mystic neat
  nimble noble nostalgic optimistic patient peaceful pensive plucky polite practical precious proud quick quiet quirky radiant ready
  relaxed reverent roaming romantic rustic sailing serene sharp silent sleepy smooth snug sparkling spry stable stoic strange sturdy
  sunny sweet swift tender thirsty tidy tranquil trusting unruffled upbeat valiant vibrant vigilant vigorous warm wise witty wonderful
  youthful zealous zen`);

const surnames =
  words(`abel agnesi alembert almeida ampere archimedes aryabhata avicenna babbage banach banting bardeen bartik bassi
  bell benz bernoulli bhabha bhaskara blackwell bohr bolzano boole borg bose boyd brahmagupta brattain brown buck burnell cannon cantor
  carson cartwright cauchy cavendish cerf chandrasekhar chaplygin chatelet chebyshev cohen conway copernicus cori coulomb cray curie
  curran dalton darwin davinci dedekind descartes dewdney dijkstra dirac driscoll dubinsky easley edison einstein elbakyan elgamal elion
  engelbart euclid euler faraday fermat fermi feynman fibonacci franklin fourier galileo galois gates gauss germain goldberg goldstine
  goldwasser golick goodall gould greider grothendieck hamilton hamming haslett hawking heisenberg hellman herschel hertz heyrovsky
  hilbert hodgkin hofstadter hoover hopper hugle hypatia ishizaka jackson jang jennings jepsen johnson joliot jones kalam kapitsa kare
  keldysh keller kepler khayyam khorana kilby kirch knuth kowalevski lagrange lalande lamarr lamport laplace leakey leavitt lederberg
  lehmann leibniz lewin lichterman liskov lovelace lumiere maclaurin mahavira margulis matsumoto maxwell mayer mccarthy mcclintock
  mclaren mcnulty mendel mendeleev meitner meninsky merkle mestorf mirzakhani moore morse moser murdock napier nash neumann newton
  nightingale nobel noether northcutt noyce panini pare pascal pasteur payne perlman pike poincare poitras proskuriakova ptolemy raman
  ramanujan rhodes ride riemann ritchie robinson roentgen rosalind rubin saha sammet sanderson satoshi shamir shannon shaw shirley
  shockley shtern sinoussi snyder solomon spence stonebraker sutherland swanson swartz swirles taussig tesla tharp thompson torvalds
  turing varahamihira vaughan villani visvesvaraya volhard wescoff wilbur wiles williams williamson wilson wing wozniak wright yalow
  yonath zhukovsky`);

function words(text: string): readonly string[] {
  return text.trim().split(/\s+/);
}
