// Asks the server. Where it does not answer, or with an error, the error has a sentence for the page.
export const request = async (url, options) => {
  let answer;
  try {
    answer = await fetch(url, options);
  } catch {
    throw new Error("The server does not answer: start `audiovq app` again, then reload this page.");
  }
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer;
};
